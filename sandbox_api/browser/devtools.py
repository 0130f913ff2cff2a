"""Chromium's DevTools without Playwright: whether it answers, and freeing pages that would block a connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from sandbox_api.unicode import loads

PROBE_S = 2.0
PAGE_S = 1.0
LARGEST = 2**22
MOST_PAGES = 64


@dataclass(frozen=True)
class Version:
    product: str
    user_agent: str
    protocol: str
    socket: str
    """The browser's websocket; its last part changes with every start of the browser."""


def _get(url: str, method: str = "GET") -> bytes:
    # No proxy of the environment may stand between us and our own browser.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method)  # noqa: S310 - the address of our own settings
    with opener.open(request, timeout=PROBE_S) as answer:
        content: bytes = answer.read(LARGEST)
        return content


async def version(cdp_url: str) -> Version:
    """What answers at the address.

    Raises:
        OSError: nothing answers.
        ValueError: what answers is not a browser.
    """
    found = loads(await asyncio.to_thread(_get, f"{cdp_url.rstrip('/')}/json/version"))
    if not isinstance(found, dict) or "webSocketDebuggerUrl" not in found:
        raise ValueError("the answer is not that of a browser")
    return Version(
        product=found.get("Browser", ""),
        user_agent=found.get("User-Agent", ""),
        protocol=found.get("Protocol-Version", ""),
        socket=found["webSocketDebuggerUrl"],
    )


async def close_browser(socket: str) -> None:
    """Ask the browser to close itself, as a person would by closing its last window."""
    from websockets.asyncio.client import connect

    async with connect(socket, proxy=None, open_timeout=PROBE_S, compression=None, max_size=LARGEST) as client:
        await client.send(json.dumps({"id": 1, "method": "Browser.close"}))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROBE_S):
                await client.recv()


async def release(cdp_url: str, *, close: bool) -> list[str]:
    """Free pages that answer nothing: attaching to one of them would wait for ever.

    A dialog or a script without end holds them, and neither can be ended from outside; loading the page again ends
    both.

    Args:
        close: close such a tab instead; needed when its page blocks itself at once.

    Returns:
        What was done, as sentences for the caller.
    """
    base = cdp_url.rstrip("/")
    targets = loads(await asyncio.to_thread(_get, f"{base}/json/list"))
    pages = [target for target in targets if target.get("type") == "page" and target.get("webSocketDebuggerUrl")]
    if close and len(pages) == 1:
        # Without a tab the browser would end.
        await asyncio.to_thread(_get, f"{base}/json/new?about:blank", "PUT")
    notes = await asyncio.gather(*(_release(base, page, close) for page in pages[:MOST_PAGES]))
    return [note for note in notes if note]


async def _release(base: str, target: dict[str, Any], close: bool) -> str | None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    url = str(target.get("url", ""))
    what = f"a dialog or a script without end blocked {url[:200] or 'a tab'}"
    with contextlib.suppress(OSError, WebSocketException):  # the tab is gone
        async with connect(
            target["webSocketDebuggerUrl"], proxy=None, open_timeout=PROBE_S, compression=None, max_size=LARGEST
        ) as client:
            if await _answered(client, 1, {"method": "Runtime.evaluate", "params": {"expression": "1"}}):
                return None
            if not close:
                await _answered(client, 2, {"method": "Page.navigate", "params": {"url": url}})
                return f"{what}; the page was loaded again"
        await asyncio.to_thread(_get, f"{base}/json/close/{target['id']}")
        return f"{what}; the tab was closed"
    return None


async def _answered(client: Any, number: int, command: dict[str, Any]) -> bool:
    """Whether the page does the command within `PAGE_S`."""
    await client.send(json.dumps({"id": number, **command}))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PAGE_S):
            while True:
                answer = loads(await client.recv())
                if answer.get("id") == number:
                    return "error" not in answer
    return False
