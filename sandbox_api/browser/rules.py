"""Headers and routes that hold for all tabs, and outlive a restart of the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandbox_api.browser.models import MockResponse, NetworkRouteRequest
from sandbox_api.errors import SandboxError

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Request, Route

MOST = 100


def origin_of(url: str) -> str:
    """Such as `https://example.com:8443`.

    Raises:
        SandboxError: `invalid_request`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SandboxError("invalid_request", f"not an origin such as https://example.com: {url[:200]}")
    standard = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != standard else "")


class Rules:
    def __init__(self) -> None:
        self._headers: dict[str, str] = {}
        self._scoped: dict[str, dict[str, str]] = {}
        self._routes: dict[str, NetworkRouteRequest] = {}
        self._handlers: dict[str, Any] = {}

    async def apply(self, context: BrowserContext) -> None:
        """Give all of them to a newly connected browser."""
        self._handlers.clear()
        if self._headers:
            await context.set_extra_http_headers(self._headers)
        for origin in self._scoped:
            await self._route(context, origin + "/**", self._scoped_handler(origin))
        for pattern, rule in self._routes.items():
            await self._route(context, pattern, _handler(rule))

    async def set_headers(self, context: BrowserContext, headers: dict[str, str]) -> None:
        await context.set_extra_http_headers(headers)
        self._headers = headers

    async def set_scoped(self, context: BrowserContext, origin: str, headers: dict[str, str]) -> None:
        """No headers removes those of the origin."""
        origin = origin_of(origin)
        self._room(self._scoped, origin)
        if headers:
            self._scoped[origin] = headers
            await self._route(context, origin + "/**", self._scoped_handler(origin))
        elif self._scoped.pop(origin, None):
            await self._unroute(context, origin + "/**")

    async def add(self, context: BrowserContext, rule: NetworkRouteRequest) -> None:
        self._room(self._routes, rule.url_pattern)
        await self._route(context, rule.url_pattern, _handler(rule))
        self._routes[rule.url_pattern] = rule

    async def remove(self, context: BrowserContext, pattern: str) -> None:
        if self._routes.pop(pattern, None) is None:
            raise SandboxError(
                "not_found", f"there is no route {pattern[:200]}", hint="Give the pattern as it was added."
            )
        await self._unroute(context, pattern)

    def listed(self) -> list[NetworkRouteRequest]:
        return list(self._routes.values())

    def _room(self, rules: dict[str, Any], key: str) -> None:
        if key not in rules and len(rules) >= MOST:
            raise SandboxError("limit_reached", f"there are {MOST} rules", hint="Remove one of them.")

    async def _route(self, context: BrowserContext, pattern: str, handler: Any) -> None:
        await self._unroute(context, pattern)
        await context.route(pattern, handler)
        self._handlers[pattern] = handler

    async def _unroute(self, context: BrowserContext, pattern: str) -> None:
        if handler := self._handlers.pop(pattern, None):
            await context.unroute(pattern, handler)

    def _scoped_handler(self, origin: str) -> Any:
        async def add(route: Route, request: Request) -> None:
            await route.fallback(headers={**request.headers, **self._scoped.get(origin, {})})

        return add


def _handler(rule: NetworkRouteRequest) -> Any:
    answer = rule.response or MockResponse()

    async def act(route: Route) -> None:
        if rule.abort:
            await route.abort("blockedbyclient")
        else:
            await route.fulfill(
                status=answer.status, headers=answer.headers, body=answer.body, content_type=answer.content_type
            )

    return act
