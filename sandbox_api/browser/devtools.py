"""Chromium's DevTools without Playwright: whether it answers, and freeing pages that would block a connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from dataclasses import dataclass
from typing import Any

PROBE_S = 2.0
PAGE_S = 1.0
LARGEST = 2**22


@dataclass(frozen=True)
class Version:
    product: str
    user_agent: str
    protocol: str
    socket: str
    """The browser's websocket; its last part changes with every start of the browser."""


def _get(url: str) -> bytes:
    # No proxy of the environment may stand between us and our own browser.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PROBE_S) as answer:
        content: bytes = answer.read(LARGEST)
        return content


async def version(cdp_url: str) -> Version:
    """What answers at the address.

    Raises:
        OSError: nothing answers.
        ValueError: something answers that is no browser.
    """
    found = json.loads(await asyncio.to_thread(_get, f"{cdp_url.rstrip('/')}/json/version"))
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


async def release(cdp_url: str, *, force: bool) -> list[str]:
    """Free pages that answer nothing; attaching to one of them would wait for ever.

    Args:
        force: also end scripts that run without end, and close the tab when that does not help.

    Returns:
        What was done, in words for the caller.
    """
    base = cdp_url.rstrip("/")
    targets = json.loads(await asyncio.to_thread(_get, f"{base}/json/list"))
    pages = [target for target in targets if target.get("type") == "page" and target.get("webSocketDebuggerUrl")]
    notes = await asyncio.gather(*(_release(base, page, force) for page in pages[:64]))
    return [note for note in notes if note]


async def _release(base: str, target: dict[str, Any], force: bool) -> str | None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    url = str(target.get("url", ""))[:200]
    try:
        async with connect(
            target["webSocketDebuggerUrl"], proxy=None, open_timeout=PROBE_S, compression=None, max_size=LARGEST
        ) as client:
            probe = {"method": "Runtime.evaluate", "params": {"expression": "1"}}
            if await _answered(client, 1, probe):
                return None
            await client.send(json.dumps({"id": 2, "method": "Page.enable"}))
            dismissed = await _answered(
                client, 3, {"method": "Page.handleJavaScriptDialog", "params": {"accept": False}}
            )
            if dismissed and await _answered(client, 4, probe):
                return f"a dialog was open on {url}; it was dismissed"
            if not force:
                return None
            await _answered(client, 5, {"method": "Runtime.terminateExecution"})
            if await _answered(client, 6, probe):
                return f"a script on {url} ran without end; it was ended"
    except (OSError, WebSocketException):
        pass  # the tab is gone, or cannot be reached: closing it is what remains
    if force:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_get, f"{base}/json/close/{target['id']}")
            return f"the tab {url} answered nothing; it was closed"
    return None


async def _answered(client: Any, number: int, command: dict[str, Any]) -> bool:
    """Whether the page does the command within `PAGE_S`."""
    await client.send(json.dumps({"id": number, **command}))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PAGE_S):
            while True:
                answer = json.loads(await client.recv())
                if answer.get("id") == number:
                    return "error" not in answer
    return False
