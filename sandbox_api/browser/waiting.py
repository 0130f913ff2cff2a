"""Waits. They take no turn: what is waited for is mostly brought about by another call."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

from sandbox_api.browser.downloads import Downloads
from sandbox_api.browser.models import Download, WaitRequest
from sandbox_api.browser.session import PageCall
from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import from_os_error
from sandbox_api.paths import Confinement


async def wait(call: PageCall, request: WaitRequest, downloads: Downloads, paths: Confinement) -> dict[str, Any]:
    """Until it has happened. Returns what is known of it.

    Raises:
        SandboxError: `browser_timeout`, `invalid_request`, `browser_failed`.
    """
    page, ms = call.page, call.ms
    pattern = request.url_pattern or request.url or ""
    match request.type:
        case "selector":
            assert request.selector
            state: Any = request.state or "visible"
            await page.wait_for_selector(request.selector, state=state, timeout=ms)
            return {"selector": request.selector, "state": state}
        case "load" | "network_idle":
            reached: Any = "networkidle" if request.type == "network_idle" else request.state or "load"
            await page.wait_for_load_state(reached, timeout=ms)
            return {"state": reached}
        case "url":
            await page.wait_for_url(request.url or pattern, timeout=ms, wait_until="commit")
            return {"url": page.url}
        case "function":
            assert request.expression
            polling: Any = request.polling or "raf"
            # A tab in the background draws no frames.
            if polling == "raf" and await call.tab.sight() == 0:
                polling = 100
            found = await page.wait_for_function(request.expression, polling=polling, timeout=ms)
            await found.dispose()
            return {"expression": request.expression[:200]}
        case "response":
            async with page.expect_response(pattern, timeout=ms) as response:
                pass
            answered = await response.value
            return {"url": answered.url, "status": answered.status, "method": answered.request.method}
        case "request":
            async with page.expect_request(pattern, timeout=ms) as sent:
                pass
            asked = await sent.value
            return {"url": asked.url, "method": asked.method}
        case "download":
            download = await downloads.wait()
            if request.save_path:
                await asyncio.to_thread(_copy, paths, download, request.save_path)
            return download.model_dump()
        case "timeout":
            raise AssertionError("needs no page")


def _copy(paths: Confinement, download: Download, wanted: str) -> None:
    if download.path is None:
        raise SandboxError("browser_failed", f"the download {download.name} was cancelled")
    path = paths.resolve(wanted)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.reserve.check(path.parent, download.size)
        shutil.copyfile(download.path, path)
    except OSError as error:
        raise from_os_error(error, wanted) from error
    download.path = str(path)
