"""The browser's DevTools under /cdp, with addresses that hold where the caller is and when the browser restarts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandbox_api.errors import SandboxError

if TYPE_CHECKING:
    from aiohttp import ClientSession

BROWSER = re.compile(r"/devtools/browser/[^/]+")
OWN_WEBSOCKET = re.compile(r"wss?://[^/]+(?=/devtools/)")
OWN_QUERY = re.compile(r"\bws=[^/&]+(?=/devtools/)")
ANSWER_S = 5.0
MOUNT = "/cdp"


def rewritten(value: Any, http_base: str, websocket_base: str) -> Any:
    """DevTools' answer with its addresses leading through the entry.

    Args:
        http_base, websocket_base: where the caller reaches the entry, such as `https://host/prefix`.
    """
    if isinstance(value, list):
        return [rewritten(item, http_base, websocket_base) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: rewritten(item, http_base, websocket_base) for key, item in value.items()}
    if isinstance(address := changed.get("webSocketDebuggerUrl"), str):
        changed["webSocketDebuggerUrl"] = OWN_WEBSOCKET.sub(websocket_base + MOUNT, address)
    if isinstance(address := changed.get("devtoolsFrontendUrl"), str):
        scheme, _, rest = websocket_base.partition("://")
        address = OWN_QUERY.sub(f"{scheme}={rest}{MOUNT}", address)
        changed["devtoolsFrontendUrl"] = http_base + MOUNT + address if address.startswith("/") else address
    return changed


async def ask(session: ClientSession, base: str, method: str, path: str, query: str = "") -> tuple[int, bytes]:
    """Status and body of one of DevTools' HTTP answers.

    Raises:
        SandboxError: `browser_unavailable`.
    """
    import aiohttp
    from yarl import URL

    url = URL(base + path + (f"?{query}" if query else ""), encoded=True)
    try:
        # Chromium answers only those who call it by its address.
        async with session.request(method, url, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as response:
            return response.status, await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise SandboxError("browser_unavailable", "the browser's DevTools do not answer") from error


def browser_path(version: dict[str, Any]) -> str:
    """Path of the present browser's websocket, from /json/version."""
    return urlsplit(str(version["webSocketDebuggerUrl"])).path
