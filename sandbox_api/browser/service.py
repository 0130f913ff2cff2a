"""What can be done with the browser."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sandbox_api import __version__
from sandbox_api.browser import content, devtools, files, interaction, storage, waiting
from sandbox_api.browser.addresses import address
from sandbox_api.browser.evaluation import evaluate
from sandbox_api.browser.models import (
    Download,
    Element,
    Found,
    Markdown,
    Navigation,
    NetworkRouteRequest,
    Outcome,
    PageState,
    Resolution,
    Restarted,
    Saved,
    Screenshot,
    ScreenshotRequest,
    StateSaved,
    TabInfo,
    Timed,
    Until,
    Viewport,
    WaitRequest,
)
from sandbox_api.browser.session import BrowserSession, Choice, PageCall
from sandbox_api.desktop.service import DesktopService
from sandbox_api.errors import SandboxError
from sandbox_api.file.pictures import dimensions
from sandbox_api.health import Health
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings

GRACE_S = 60.0
RESTART_S = 30.0
POLL_S = 0.1
SHORT_S = 10.0
LARGEST_SIDE = 16_384
"""Chromium draws no taller or wider picture."""
STATE_BYTES = 64 * 2**20
LONGEST_TEXT = 2 * 2**20


class BrowserService:
    """Methods that act on a page take the index or id of its tab, and act on the tab in front when none is named.

    Each has a timeout, takes its turn on its tab, and waits for no other tab. What happens beside it (a tab opens, a
    dialog is dismissed, a download starts) is the `hint` of its `Outcome`. All raise `SandboxError`:
    `browser_unavailable`, `tab_not_found`, `browser_timeout`, `browser_failed`, `invalid_request` and what they name.
    """

    def __init__(self, settings: Settings, paths: Confinement, desktop: DesktopService) -> None:
        self._settings = settings
        self._paths = paths
        self._desktop = desktop
        self._session = BrowserSession(settings, paths)
        self._expected = time.monotonic()

    async def start(self) -> None:
        self._expected = time.monotonic()

    async def stop(self) -> None:
        await self._session.disconnect()

    async def health(self) -> Health:
        if not self._settings.cdp_url:
            return Health(status="unavailable", detail="SANDBOX_CDP_URL is not set: this sandbox has no browser")
        try:
            version = await self._session.version()
        except SandboxError as error:
            young = time.monotonic() - self._expected < GRACE_S
            return Health(status="starting" if young else "failed", detail=error.message)
        return Health(status="ready", version=version.product, address="/v1/browser/info")

    # The browser

    async def version(self) -> devtools.Version:
        """What DevTools say of the browser; no page is asked."""
        return await self._session.version()

    async def viewports(self) -> tuple[Viewport, Viewport | None]:
        """Sizes of the desktop and of the page in front, if that answers."""
        width, height = self._settings.display_width, self._settings.display_height
        with contextlib.suppress(SandboxError):
            width, height = await self._desktop.size()
        page = None
        with contextlib.suppress(SandboxError):
            async with self._session.page_call("viewport", None, 2, exclusive=False) as call:
                inner = await call.page.evaluate("[innerWidth, innerHeight]")
                page = Viewport(width=inner[0], height=inner[1])
        return Viewport(width=width, height=height), page

    async def resize(self, resolution: Resolution) -> Viewport:
        """Change the size of the desktop; the browser's window follows. Returns the new size."""
        width, height = await self._desktop.resize(resolution.width, resolution.height)
        return Viewport(width=width, height=height)

    async def restart(self, mode: Literal["soft", "hard"] = "hard") -> Restarted:
        """Renew our connection (`soft`), or have the browser close and its supervisor start it again (`hard`)."""
        start = time.monotonic()
        await self._session.disconnect()
        if mode == "hard":
            await self._close_and_wait()
        version = await self._session.version()
        return Restarted(mode=mode, version=version.product, seconds=round(time.monotonic() - start, 3))

    async def _close_and_wait(self) -> None:
        old = None
        # One that does not answer is already being started again.
        with contextlib.suppress(SandboxError, OSError):
            old = (await self._session.version()).socket
            await devtools.close_browser(old)
        self._expected = time.monotonic()
        while time.monotonic() - self._expected < RESTART_S:
            with contextlib.suppress(SandboxError):
                if (await self._session.version()).socket != old:
                    return
            await asyncio.sleep(POLL_S)
        raise SandboxError(
            "browser_unavailable", f"the browser was closed and did not come back within {RESTART_S:.0f} s"
        )

    # Pages

    async def navigate(
        self, url: str, wait_until: Until = "load", timeout: float = 30, tab: Choice = None
    ) -> Outcome[Navigation]:
        """Open an address.

        Raises:
            SandboxError: `navigation_failed` when nothing answers there.
        """
        where = await asyncio.to_thread(address, self._paths, url)
        async with self._session.page_call(
            f"navigate to {url[:200]}", tab, timeout, interactive=True, revive=True
        ) as call:
            status = await self._open(call, where, wait_until)
        return call.outcome(Navigation(status=status, **call.state.model_dump()))

    async def _open(self, call: PageCall, url: str, wait_until: Until) -> int | None:
        from playwright.async_api import Error

        arrived = self._session.downloads.count
        try:
            response = await call.page.goto(url, wait_until=wait_until, timeout=call.ms)
        except Error as error:
            begun = "Download is starting" in str(error) or self._session.downloads.count > arrived
            if not begun:
                raise
            return None
        return response.status if response else None

    async def back(self, timeout: float = 30, tab: Choice = None) -> Outcome[Navigation]:
        return await self._move("go back", tab, timeout)

    async def forward(self, timeout: float = 30, tab: Choice = None) -> Outcome[Navigation]:
        return await self._move("go forward", tab, timeout)

    async def reload(self, timeout: float = 30, tab: Choice = None) -> Outcome[Navigation]:
        return await self._move("reload", tab, timeout)

    async def _move(self, what: str, tab: Choice, timeout: float) -> Outcome[Navigation]:
        async with self._session.page_call(what, tab, timeout, interactive=True) as call:
            page = call.page
            history = await call.tab.send("Page.getNavigationHistory")
            at, last = history["currentIndex"], len(history["entries"]) - 1
            status = None
            if (what == "go back" and at == 0) or (what == "go forward" and at == last):
                call.hints.append("the tab's history ends here; nothing has changed")
            else:
                move = {"go back": page.go_back, "go forward": page.go_forward, "reload": page.reload}[what]
                response = await move(timeout=call.ms)
                status = response.status if response else None
        return call.outcome(Navigation(status=status, **call.state.model_dump()))

    async def interact(self, request: Timed, tab: Choice = None) -> Outcome[PageState]:
        """Do one of the actions of `interaction.ACTIONS`.

        Raises:
            SandboxError: `element_not_found`; `browser_timeout` says why an element that is there cannot be used.
        """
        async with self._session.page_call(_words(request), tab, request.timeout, interactive=True) as call:
            await interaction.perform(call, request, self._paths)
        return call.outcome(call.state)

    async def evaluate(self, expression: str, timeout: float = 30, tab: Choice = None) -> Outcome[Any]:
        """The value of JavaScript, as JSON has it.

        Raises:
            SandboxError: `browser_failed` when it throws or the value cannot be returned; `too_large`.
        """
        async with self._session.page_call("evaluate", tab, timeout, interactive=True) as call:
            value = await evaluate(call, expression, self._settings.read_bytes)
        return call.outcome(value)

    async def wait(self, request: WaitRequest, tab: Choice = None) -> Outcome[dict[str, Any]]:
        if request.type == "timeout":
            await asyncio.sleep(request.timeout)
            return Outcome({"waited": request.timeout})
        async with self._session.page_call(f"wait for {request.type}", tab, request.timeout, exclusive=False) as call:
            found = await waiting.wait(call, request, self._session.downloads, self._paths)
        return call.outcome(found)

    # What a page shows

    async def screenshot_bytes(
        self,
        kind: Literal["png", "jpeg"] = "png",
        full_page: bool = False,
        quality: int | None = None,
        selector: str | None = None,
        timeout: float = 30,
        tab: Choice = None,
    ) -> Outcome[bytes]:
        """A picture of the page.

        Raises:
            SandboxError: `too_large`, `element_not_found`.
        """
        async with self._session.page_call("screenshot", tab, timeout) as call:
            options: dict[str, Any] = {"type": kind, "timeout": call.ms}
            if kind == "jpeg":
                options["quality"] = 80 if quality is None else quality
            if selector is not None:
                picture = await call.page.locator(selector).first.screenshot(**options)
            else:
                if full_page:
                    await self._check_size(call)
                picture = await call.page.screenshot(full_page=full_page, **options)
        limit = self._settings.screenshot_bytes
        if len(picture) > limit:
            raise SandboxError(
                "too_large",
                f"the screenshot has {len(picture)} bytes; SANDBOX_SCREENSHOT_BYTES allows {limit}",
                hint="Ask for format=jpeg with a lower quality, or without full_page.",
            )
        return call.outcome(picture)

    async def _check_size(self, call: PageCall) -> None:
        size = (await call.tab.send("Page.getLayoutMetrics"))["cssContentSize"]
        if max(size["width"], size["height"]) > LARGEST_SIDE:
            raise SandboxError(
                "too_large",
                f"the page is {size['width']} x {size['height']} pixels; {LARGEST_SIDE} is the most in one picture",
                hint="Scroll, and take several pictures without full_page.",
            )

    async def screenshot(self, request: ScreenshotRequest, tab: Choice = None) -> Outcome[Screenshot]:
        """A picture of the page, saved to the request's path, or returned in base64.

        Raises:
            SandboxError: `too_large`, `element_not_found`, and as of writing a file.
        """
        path = request.path
        if path is not None:
            await asyncio.to_thread(self._paths.resolve, path)
        ending = request.format or Path(path or "").suffix.lower().removeprefix(".")
        kind: Literal["png", "jpeg"] = "jpeg" if ending in ("jpeg", "jpg") else "png"
        options = request.model_dump(exclude={"path", "format"})
        taken = await self.screenshot_bytes(kind, **options, tab=tab)
        picture = taken.data
        size = dimensions(io.BytesIO(picture))
        if size is None:
            raise SandboxError("browser_failed", "the browser's picture is neither PNG nor JPEG")
        shot = Screenshot(path=None, format=kind, size=len(picture), width=size[0], height=size[1])
        if path is None:
            shot.base64 = base64.b64encode(picture).decode()
        else:
            shot.path = str(await asyncio.to_thread(files.save, self._paths, path, picture))
        return Outcome(shot, taken.hint)

    async def text(self, tab: Choice = None, timeout: float = SHORT_S) -> Outcome[str]:
        """What a person could read on the page."""
        async with self._session.page_call("text", tab, timeout) as call:
            found = await content.text(call, LONGEST_TEXT)
        return call.outcome(found)

    async def html(self, outer: bool = False, tab: Choice = None, timeout: float = SHORT_S) -> Outcome[str]:
        async with self._session.page_call("html", tab, timeout) as call:
            found = await content.html(call, outer, self._settings.read_bytes)
        return call.outcome(found)

    async def markdown(self, tab: Choice = None, timeout: float = 30) -> Outcome[Markdown]:
        """The page's main content."""
        async with self._session.page_call("markdown", tab, timeout) as call:
            found = await content.markdown(call)
        return call.outcome(Markdown(markdown=found, **call.state.model_dump()))

    async def elements(self, tab: Choice = None, timeout: float = SHORT_S) -> Outcome[list[Element]]:
        """What can be clicked or filled; its selectors and indexes are for `click` and `fill`."""
        async with self._session.page_call("elements", tab, timeout) as call:
            found = await content.elements(call)
        return call.outcome(found)

    async def find_text(self, keyword: str, tab: Choice = None, timeout: float = SHORT_S) -> Outcome[list[Found]]:
        async with self._session.page_call("find text", tab, timeout) as call:
            found = await content.find(call, keyword)
        return call.outcome(found)

    async def console(self, clear: bool = False, tab: Choice = None) -> list[dict[str, Any]]:
        """The last messages of the page's console, and its uncaught errors; oldest first."""
        chosen = await self._tab(tab)
        kept = list(chosen.console)
        if clear:
            chosen.console.clear()
        return kept

    async def requests(self, wanted: str | None, limit: int, tab: Choice = None) -> list[dict[str, Any]]:
        """The last requests of the page whose address contains `wanted`; oldest first."""
        chosen = await self._tab(tab)
        kept = [exchange for exchange in chosen.exchanges if not wanted or wanted in exchange.url]
        return [exchange.listed() for exchange in kept[-limit:]]

    async def export_console(self, path: str, clear: bool = False, tab: Choice = None) -> Saved:
        await asyncio.to_thread(self._paths.resolve, path)
        return await self._export(path, kept := await self.console(clear, tab), len(kept))

    async def export_har(self, path: str, tab: Choice = None) -> Saved:
        """The tab's requests as a HAR file."""
        await asyncio.to_thread(self._paths.resolve, path)
        entries = [exchange.har() for exchange in (await self._tab(tab)).exchanges]
        creator = {"name": "AI Sandbox", "version": __version__}
        har = {"log": {"version": "1.2", "creator": creator, "pages": [], "entries": entries}}
        return await self._export(path, har, len(entries))

    async def _export(self, path: str, value: Any, count: int) -> Saved:
        def write() -> tuple[Path, int]:
            written = json.dumps(value, ensure_ascii=False, indent=1).encode(errors="replace")
            return files.save(self._paths, path, written), len(written)

        saved, size = await asyncio.to_thread(write)
        return Saved(path=str(saved), size=size, count=count)

    async def _tab(self, tab: Choice) -> Any:
        async with self._session.browser_call("choose the tab", SHORT_S) as connection:
            return await connection.choose(tab)

    # Tabs

    async def tabs(self) -> list[TabInfo]:
        """All of them, those that people opened included. No page is asked for more than a glance."""
        async with self._session.browser_call("list tabs", SHORT_S) as connection:
            known = await connection.targets()
            front = await connection.foreground() if connection.tabs else None
            return [
                TabInfo(
                    index=index,
                    id=tab.id,
                    url=known.get(tab.id, {}).get("url", tab.page.url),
                    title=known.get(tab.id, {}).get("title", ""),
                    active=tab is front,
                    crashed=tab.crashed,
                )
                for index, tab in enumerate(connection.tabs)
            ]

    async def open_tab(self, url: str | None = None, timeout: float = 30) -> Outcome[TabInfo]:
        """A new tab in front. If the address fails, the error is raised and the tab stays."""
        where = await asyncio.to_thread(address, self._paths, url) if url else None
        async with self._session.browser_call("open a tab", timeout) as connection:
            tab = await connection.tab_of(await connection.context.new_page())
        if where:
            moved = await self.navigate(where, "load", timeout, tab.id)
            return Outcome(await self._info(tab.id), moved.hint)
        return Outcome(await self._info(tab.id))

    async def close_tab(self, tab: Choice) -> None:
        """The last one is replaced by an empty one: without a tab the browser would end."""
        async with self._session.browser_call("close the tab", SHORT_S) as connection:
            chosen = await connection.choose(tab)
            if len(connection.tabs) == 1:
                await connection.context.new_page()
            # By the browser, not the page: one that hangs is closed as well.
            await connection.session.send("Target.closeTarget", {"targetId": chosen.id})
            while not chosen.page.is_closed():
                await asyncio.sleep(0.01)

    async def activate_tab(self, tab: Choice) -> TabInfo:
        """Bring it to the front."""
        async with self._session.browser_call("activate the tab", SHORT_S) as connection:
            chosen = await connection.choose(tab)
            await connection.session.send("Target.activateTarget", {"targetId": chosen.id})
            async with asyncio.timeout(SHORT_S):
                # Until the page knows: the next call acts on the tab in front.
                while await chosen.sight() == 0:
                    await asyncio.sleep(0.01)
        return await self._info(chosen.id)

    async def _info(self, tab: str) -> TabInfo:
        found = next((one for one in await self.tabs() if one.id == tab), None)
        if found is None:
            raise SandboxError("tab_not_found", "the tab was closed meanwhile")
        return found

    # Cookies and state

    async def cookies(self, urls: Sequence[str] = ()) -> list[dict[str, Any]]:
        async with self._session.browser_call("cookies", SHORT_S) as connection:
            return [dict(one) for one in await connection.context.cookies(list(urls) or None)]

    async def set_cookies(self, cookies: list[dict[str, Any]]) -> int:
        async with self._session.browser_call("set cookies", SHORT_S) as connection:
            here = (await connection.foreground()).page.url
            taken: Any = [storage.cookie(one, here) for one in cookies]
            await connection.context.add_cookies(taken)
        return len(taken)

    async def clear_cookies(self, name: str | None = None, domain: str | None = None, path: str | None = None) -> None:
        """All, or those that match what is given."""
        filters = {key: value for key, value in (("name", name), ("domain", domain), ("path", path)) if value}
        async with self._session.browser_call("clear cookies", SHORT_S) as connection:
            await connection.context.clear_cookies(**filters)

    async def save_state(self, path: str) -> StateSaved:
        """Cookies and local storage, as a file that `load_state` and Playwright read."""
        await asyncio.to_thread(self._paths.resolve, path)
        async with self._session.browser_call("save the state", 30) as connection:
            state: Any = await connection.context.storage_state()
        saved = await self._export(path, state, 0)
        return StateSaved(
            path=saved.path, size=saved.size, cookies=len(state["cookies"]), origins=len(state["origins"])
        )

    async def load_state(self, path: str) -> StateSaved:
        """Replace the present state by a saved one."""
        read = await asyncio.to_thread(files.load, self._paths, path, STATE_BYTES)
        async with self._session.browser_call("load the state", 30) as connection:
            cookies, origins = await storage.restore(connection.context, read)
        return StateSaved(path=path, size=len(read), cookies=cookies, origins=origins)

    # Network

    async def set_headers(self, headers: dict[str, str]) -> None:
        """Of every request of all tabs; none removes them."""
        async with self._session.browser_call("set headers", SHORT_S) as connection:
            await self._session.rules.set_headers(connection.context, headers)

    async def set_scoped_headers(self, origin: str, headers: dict[str, str]) -> None:
        async with self._session.browser_call("set headers", SHORT_S) as connection:
            await self._session.rules.set_scoped(connection.context, origin, headers)

    async def add_route(self, rule: NetworkRouteRequest) -> None:
        """Answer or refuse requests of all tabs that match."""
        async with self._session.browser_call("add the route", SHORT_S) as connection:
            await self._session.rules.add(connection.context, rule)

    async def remove_route(self, pattern: str) -> None:
        async with self._session.browser_call("remove the route", SHORT_S) as connection:
            await self._session.rules.remove(connection.context, pattern)

    def routes(self) -> list[NetworkRouteRequest]:
        return self._session.rules.listed()

    # Downloads

    async def downloads(self) -> list[Download]:
        """Since the server first used the browser; newest last."""
        await self._session.connected()
        return self._session.downloads.listed()


def _words(request: Timed) -> str:
    """Such as `click #go`, for messages."""
    name = type(request).__name__.removesuffix("Request")
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
    selector, index = getattr(request, "selector", None), getattr(request, "index", None)
    target = selector[:200] if selector else f"element {index}" if index is not None else ""
    return f"{words} {target}".strip()
