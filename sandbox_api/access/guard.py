"""Checks every request and every websocket before anything else sees it."""

from __future__ import annotations

import html
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox_api.access.origins import Origins, covers, normal_origin
from sandbox_api.access.service import ANYBODY, KEY_HEADERS, AccessService, Caller
from sandbox_api.addresses import public_base
from sandbox_api.errors import SandboxError
from sandbox_api.log import logger
from sandbox_api.settings import Settings
from sandbox_api.trace import error_response, trace_id

# Hold no data; the start page takes a key and opens the rest with it.
OPEN = {"/", "/favicon.ico", "/robots.txt", "/health"}
OPEN_FOLDER = "/static"
# Pages, and what each needs besides itself.
PAGES: dict[str, tuple[str, ...]] = {
    "/vnc": ("/websockify",),
    "/jupyter": (),
    "/code-server": (),
    "/terminal": ("/v1/shell/ws",),
    "/proxy": (),
    "/absproxy": (),
    "/v1/docs": ("/v1/openapi.json",),
}
# Websockets whose caller can send no header: the first message has the key, and the route checks it (`vouch`).
FIRST_MESSAGE = "/terminal-server/api/terminals"
PAGES_BY_PORT = {"/proxy", "/absproxy"}
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
PREFLIGHT_AGE_S = 600


def page_prefixes(path: str) -> tuple[str, ...]:
    """What a cookie for the page at `path` must cover, the page first; empty when it is not a page."""
    if path == "/":
        return ("/",)
    for page, needs in PAGES.items():
        if covers(page, path):
            if page in PAGES_BY_PORT:
                page = "/".join(path.split("/")[:3])
            return (page, *needs)
    return ()


class Guard:
    """With authentication: every request needs a credential. Without: foreign hosts and origins are refused.

    What lies behind never sees the credential that opened it; it finds a `Caller` in `scope["state"]["caller"]`.
    """

    def __init__(self, app: ASGIApp, settings: Settings, tokens: AccessService) -> None:
        self.app = app
        self.settings = settings
        self.access = tokens
        self.origins = Origins(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        send = self._with_cors(connection, send)
        try:
            response = await self._check(connection)
        except SandboxError as error:
            logger.warning(
                "refused", code=error.code, problem=error.message, address=connection.client and connection.client.host
            )
            response = error_response(error, trace_id(scope))
            if error.code == "unauthorized":
                response.headers["www-authenticate"] = 'Bearer realm="sandbox"'
        await (response or self.app)(scope, receive, send)

    async def _check(self, connection: HTTPConnection) -> Response | None:
        """None lets the request through; else the answer.

        Raises:
            SandboxError: `foreign_host`, `foreign_origin`, `unauthorized`.
        """
        scope, headers = connection.scope, connection.headers
        self.origins.check_form(connection)
        if not self.settings.auth:
            self.origins.check_host(connection)
        if scope.get("method") == "OPTIONS" and "access-control-request-method" in headers and "origin" in headers:
            return self._preflight(connection)
        if not self.settings.auth:
            self.origins.check_origin(connection)
            scope["state"]["caller"] = ANYBODY
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        ticket = next((value for name, value in query if name == "ticket"), None)
        prefixes = page_prefixes(scope["path"])
        reads = scope.get("method") in ("GET", "HEAD")
        if ticket is not None and prefixes and scope.get("method") == "GET":
            return await self._exchange(connection, ticket, prefixes, [pair for pair in query if pair[0] != "ticket"])
        keyless = scope["type"] == "websocket" and covers(FIRST_MESSAGE, scope["path"])
        if keyless or (reads and (scope["path"] in OPEN or covers(OPEN_FOLDER, scope["path"]))):
            caller = ANYBODY
        else:
            usable = ticket if reads or scope["type"] == "websocket" else None
            caller = await self.access.authenticate(connection, self._cookie_name(connection), usable)
            if caller.method == "cookie":
                self.origins.check_origin(connection)
        scope["state"]["caller"] = caller
        self._strip(connection, caller)
        if caller.method == "ticket":
            scope["query_string"] = urlencode([pair for pair in query if pair[0] != "ticket"]).encode()
        return None

    async def _exchange(
        self, connection: HTTPConnection, ticket: str, prefixes: tuple[str, ...], query: list[tuple[str, str]]
    ) -> Response:
        """Turn a ticket into cookies, and send the browser to the same address without the ticket."""
        path, name = connection.scope["path"], self._cookie_name(connection)
        grant = self.access.tickets.redeem(ticket, path)
        if grant is None and path not in OPEN:
            # The used ticket may be in the address of a page that is open already, such as by the Back button.
            await self.access.authenticate(connection, name, ticket)
        base = public_base(connection, self.settings)
        prefix = urlsplit(base).path
        # Relative, so that it holds behind any prefix.
        response = _send_on(
            connection, "./" + quote(path.rsplit("/", 1)[1]) + (f"?{urlencode(query)}" if query else "")
        )
        if grant is None:
            return response
        for part in prefixes:
            response.set_cookie(
                name,
                self.access.cookies.sign(part, grant.subject, self.settings.cookie_ttl_s, view_only=grant.view_only),
                max_age=int(self.settings.cookie_ttl_s),
                path=prefix + part,
                secure=base.startswith("https:"),
                httponly=True,
                samesite="strict",
            )
        return response

    def _preflight(self, connection: HTTPConnection) -> Response:
        """Browsers ask without a credential whether a page of another origin may call."""
        self.origins.check_origin(connection)
        headers = {
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": connection.headers.get("access-control-request-headers", ""),
            "access-control-max-age": str(PREFLIGHT_AGE_S),
        }
        return Response(status_code=204, headers=headers)

    def _with_cors(self, connection: HTTPConnection, send: Send) -> Send:
        """Let pages of the allowed origins read the answer."""
        origin = connection.headers.get("origin", "")
        if connection.scope["type"] != "http" or not self.origins.is_allowed(origin):
            return send

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["access-control-allow-origin"] = origin
                headers["access-control-expose-headers"] = "*"
                headers.add_vary_header("Origin")
            await send(message)

        return send_with_headers

    def _cookie_name(self, connection: HTTPConnection) -> str:
        """Browsers share cookies among the ports of a host; other sandboxes on it must not get in the way."""
        own = normal_origin(urlsplit(public_base(connection, self.settings))._replace(path="").geturl())
        return f"sandbox-{own[2] if own else 0}"

    def _strip(self, connection: HTTPConnection, caller: Caller) -> None:
        """Take our credentials out of the request: what lies behind may be a program that somebody runs here."""
        cookie = self._cookie_name(connection)
        headers = []
        for name, value in connection.scope["headers"]:
            text = value.decode("latin-1")
            if name.decode("latin-1") in KEY_HEADERS:
                continue
            if name == b"authorization" and (caller.method == "jwt" or self.access.is_key(text)):
                continue
            if name == b"cookie":
                kept = [part for part in text.split(";") if part.strip().partition("=")[0] != cookie]
                if not kept:
                    continue
                value = ";".join(kept).strip().encode("latin-1")
            headers.append((name, value))
        connection.scope["headers"] = headers


def _send_on(connection: HTTPConnection, address: str) -> Response:
    headers = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    if connection.headers.get("sec-fetch-site") != "cross-site":
        return RedirectResponse(address, 303, headers=headers)
    # After a redirect the browser would still count the visit as another site's, and keep Strict cookies back.
    page = f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(address)}">'
    return HTMLResponse(page, headers=headers)
