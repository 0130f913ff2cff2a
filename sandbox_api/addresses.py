"""Where the caller reaches this sandbox, as seen from the caller's side, and where the caller is."""

from __future__ import annotations

import re

from starlette.requests import HTTPConnection

from sandbox_api.settings import Settings

HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
SECURE = {"https", "wss"}


def public_base(connection: HTTPConnection, settings: Settings) -> str:
    """Such as `https://host:8443/prefix`, without a slash at the end.

    `X-Forwarded-Proto`, `-Host` and `-Prefix` count only when the peer is one of SANDBOX_TRUSTED_PROXIES; of a list
    in them, the first word is what the caller used.
    """
    trusted = _is_proxy(connection.client.host if connection.client else "", settings)

    def forwarded(name: str) -> str:
        return connection.headers.get(f"x-forwarded-{name}", "").split(",")[0].strip() if trusted else ""

    scheme = forwarded("proto") or str(connection.scope["scheme"])
    host = forwarded("host")
    if not HOST.fullmatch(host):
        host = connection.headers.get("host") or connection.url.netloc
    prefix = forwarded("prefix")
    if not prefix or not PREFIX.fullmatch(prefix):
        prefix = str(connection.scope.get("root_path", ""))
    return f"{'https' if scheme.lower() in SECURE else 'http'}://{host}{prefix.rstrip('/')}"


def caller_address(connection: HTTPConnection, settings: Settings) -> str:
    """The caller's address, also behind trusted proxies: the last one in `X-Forwarded-For` that is none of them.

    What stands before it, the caller may have made up.
    """
    address = connection.client.host if connection.client else ""
    forwarded = ",".join(connection.headers.getlist("x-forwarded-for")).split(",")
    for before in reversed([word.strip() for word in forwarded if word.strip()]):
        if not _is_proxy(address, settings):
            break
        address = before
    return address


def _is_proxy(address: str, settings: Settings) -> bool:
    return address in settings.trusted_proxies


def websocket_base(connection: HTTPConnection, settings: Settings) -> str:
    """The same with ws or wss."""
    return "ws" + public_base(connection, settings).removeprefix("http")
