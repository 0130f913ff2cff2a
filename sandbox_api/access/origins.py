"""Which hosts and web origins may call, so that no foreign web page reaches the sandbox through a browser."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from sandbox_api.addresses import public_base
from sandbox_api.errors import SandboxError
from sandbox_api.settings import Settings

HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
ORIGIN = re.compile(r"(https?)://([^/?#@]+)")
PORTS = {"http": 80, "https": 443}
# Programs speak to these, people do not open them from other sites. The documentation is the exception.
NO_PAGES = ("/v1", "/mcp", "/cdp", "/json", "/tickets", "/auth")
DOCUMENTATION = "/v1/docs"
KEPT = 256
"""Hosts and origins whose reading is remembered: every request brings one, nearly always the same."""


def covers(prefix: str, path: str) -> bool:
    """Whether a path lies at or under a prefix, by whole segments. One with dot segments lies nowhere."""
    if any(part in (".", "..") for part in path.split("/")):
        return False
    return prefix == "/" or path == prefix.rstrip("/") or path.startswith(prefix.rstrip("/") + "/")


@lru_cache(KEPT)
def split_host(value: str) -> tuple[str, int | None] | None:
    """Name or address, in one spelling, and port of a `Host` header; None when it is malformed."""
    match = HOST.fullmatch(value.strip())
    if match is None:
        return None
    name, port = match[1].lower().rstrip(".").strip("[]"), int(match[2]) if match[2] else None
    try:
        return str(ipaddress.ip_address(name)), port
    except ValueError:
        return None if match[1].startswith("[") or not name else (name, port)


@lru_cache(KEPT)
def normal_origin(value: str) -> tuple[str, str, int] | None:
    """Scheme, name and port of a web origin; None when it is none, such as `null`."""
    match = ORIGIN.fullmatch(value.strip().lower().rstrip("/"))
    host = split_host(match[2]) if match else None
    return (match[1], host[0], host[1] or PORTS[match[1]]) if match and host else None


@lru_cache(KEPT)
def is_local(name: str) -> bool:
    """Names that lead to the caller's own machine, whatever a DNS server says."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


class Origins:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        named = {host[0] for value in settings.allowed_hosts if (host := split_host(value.removeprefix("*.")))}
        wide = {value.lower()[1:] for value in settings.allowed_hosts if value.startswith("*.")}
        own = split_host(settings.host)
        self._hosts = (named - {suffix[1:] for suffix in wide}) | ({own[0]} if own else set())
        self._hosts -= {"0.0.0.0", "::"}  # noqa: S104 - these name no machine
        self._suffixes = tuple(wide)
        self._origins = {value.lower().rstrip("/") for value in settings.allowed_origins}
        self._normal_origins = {origin for value in settings.allowed_origins if (origin := normal_origin(value))}

    def is_allowed(self, origin: str) -> bool:
        """Whether SANDBOX_ALLOWED_ORIGINS names it."""
        return normal_origin(origin) in self._normal_origins or origin.lower() in self._origins

    def check_form(self, connection: HTTPConnection) -> None:
        """Refuse requests without a valid `Host` header, or with several.

        Raises:
            SandboxError: `foreign_host`.
        """
        hosts = connection.headers.getlist("host")
        if len(hosts) != 1 or split_host(hosts[0]) is None:
            raise SandboxError("foreign_host", "the request has no valid Host header", hint="Send one Host header.")

    def check_host(self, connection: HTTPConnection) -> None:
        """Refuse a request that was sent to a name which an attacker's DNS server can point here.

        Raises:
            SandboxError: `foreign_host`.
        """
        for value in (connection.headers["host"], urlsplit(public_base(connection, self.settings)).netloc):
            host = split_host(value)
            if host is None or not (is_local(host[0]) or host[0] in self._hosts or host[0].endswith(self._suffixes)):
                raise SandboxError("foreign_host", f"requests to the host {value[:255]} are refused")

    def check_origin(self, connection: HTTPConnection) -> None:
        """Refuse a request that another site's page makes.

        Raises:
            SandboxError: `foreign_origin`.
        """
        origins = connection.headers.getlist("origin")
        if len(origins) > 1:
            raise SandboxError("foreign_origin", "the request has more than one Origin header")
        if origins:
            own = normal_origin(urlsplit(public_base(connection, self.settings))._replace(path="").geturl())
            if not (self.is_allowed(origins[0]) or (own and normal_origin(origins[0]) == own)):
                raise SandboxError("foreign_origin", f"requests from pages of {origins[0][:255]} are refused")
        elif connection.headers.get("sec-fetch-site") == "cross-site" and not self._is_visit(connection):
            referrer = urlsplit(connection.headers.get("referer", ""))
            if not self.is_allowed(f"{referrer.scheme}://{referrer.netloc}"):
                raise SandboxError("foreign_origin", "requests from pages of other sites are refused")

    @staticmethod
    def _is_visit(connection: HTTPConnection) -> bool:
        """Whether a person follows a link to one of the sandbox's pages."""
        headers, path = connection.headers, connection.scope["path"]
        page = covers(DOCUMENTATION, path) or not any(covers(prefix, path) for prefix in NO_PAGES)
        return (
            page
            and connection.scope.get("method") == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
