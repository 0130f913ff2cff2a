"""Which addresses the page routes open."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from sandbox_api.browser import files
from sandbox_api.errors import SandboxError
from sandbox_api.paths import Confinement

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!\d)")
LOCAL = re.compile(r"(localhost|127\.|\[|[\w-]+(:\d|/|$))", re.IGNORECASE)
HINT = "Open http, https, data, about:blank, or a file within the reachable folders."


def address(paths: Confinement, wanted: str) -> str:
    """The address as the browser is given it; a name without a scheme gets one.

    The browser's own pages (chrome:, devtools:) are for people at the desktop: they hold its settings. Files are
    confined like those of the file routes; folders have listings, which would lead out.

    Raises:
        SandboxError: `invalid_request`, or as of `Confinement.resolve` for a file.
    """
    url = wanted.strip()
    if not url or any(ord(letter) < 32 for letter in url):
        raise SandboxError("invalid_request", "the address is empty or has control characters", hint=HINT)
    if not SCHEME.match(url):
        url = ("http://" if LOCAL.match(url) else "https://") + url
    scheme = url.split(":", 1)[0].lower()
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise SandboxError("invalid_request", f"a file address names no host: {wanted[:200]}", hint=HINT)
        real = files.readable(paths, unquote(parts.path))
        query = f"?{parts.query}" if parts.query else ""
        return real.as_uri() + query + (f"#{parts.fragment}" if parts.fragment else "")
    if scheme in ("http", "https"):
        try:
            named = bool(urlsplit(url).hostname)
        except ValueError:
            named = False
        if named:
            return url
    elif scheme == "data" or url.split("?")[0].split("#")[0] == "about:blank":
        return url
    raise SandboxError("invalid_request", f"this address is not opened: {wanted[:200]}", hint=HINT)
