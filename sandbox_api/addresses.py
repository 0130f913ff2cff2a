"""Where the caller reaches this sandbox: scheme, host and prefix as seen from the caller's side."""

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
    trusted = connection.client is not None and connection.client.host in settings.trusted_proxies

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


def websocket_base(connection: HTTPConnection, settings: Settings) -> str:
    """The same with ws or wss."""
    return "ws" + public_base(connection, settings).removeprefix("http")
