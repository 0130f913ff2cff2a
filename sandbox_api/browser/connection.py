"""The connection to the browser: Playwright's driver, the default context, and its tabs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sandbox_api.browser import devtools
from sandbox_api.browser.failures import clean
from sandbox_api.browser.tab import Tab
from sandbox_api.errors import SandboxError
from sandbox_api.log import logger

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, CDPSession, Page, Playwright

ATTACH_S = 5.0
REGISTER_S = 5.0


class Connection:
    """Lives until the browser goes away; a new one is made then."""

    def __init__(self, driver: Playwright, browser: Browser, notes: list[str]) -> None:
        self.browser = browser
        self.context: BrowserContext = browser.contexts[0]
        self.notes = notes
        self.session: CDPSession
        self._driver = driver
        self._tabs: dict[Page, Tab] = {}
        self._registering: set[asyncio.Task[None]] = set()
        self._made = 0

    @classmethod
    async def open(cls, cdp_url: str) -> Connection:
        """Start the driver and attach to the browser.

        Raises:
            SandboxError: `browser_unavailable`.
        """
        try:
            await devtools.version(cdp_url)
        except (OSError, ValueError) as error:
            raise SandboxError("browser_unavailable", f"the browser does not answer at {cdp_url}: {error}") from error
        from playwright.async_api import Error, async_playwright

        driver = await async_playwright().start()
        try:
            notes: list[str] = []
            for remedy in (False, True, None):
                try:
                    browser = await _attach(driver, cdp_url)
                    break
                except Error as error:
                    if remedy is None:
                        raise
                    logger.warning("browser-blocked", reason=clean(error))
                    notes = await devtools.release(cdp_url, close=remedy) or notes
            connection = cls(driver, browser, notes)
            await connection._begin()
        except BaseException as error:
            with contextlib.suppress(Exception):
                await driver.stop()
            if isinstance(error, (Error, OSError, ValueError)):
                raise SandboxError(
                    "browser_unavailable", f"the browser cannot be attached to: {clean(error)}"
                ) from error
            raise
        return connection

    async def _begin(self) -> None:
        self.session = await self.browser.new_browser_cdp_session()
        self.context.on("page", self._on_page)
        for page in self.context.pages:
            self._on_page(page)
        await self.settled()

    def on_lost(self, act: Callable[[], None]) -> None:
        self.browser.on("disconnected", lambda _: act())

    @property
    def alive(self) -> bool:
        return self.browser.is_connected()

    async def close(self) -> None:
        for task in [*self._registering]:
            task.cancel()
        for tab in self._tabs.values():
            tab.close()
        # Ending the driver leaves the browser as it is.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._driver.stop(), 5)

    def _on_page(self, page: Page) -> None:
        if page in self._tabs or page.is_closed():
            return
        self._made += 1
        tab = self._tabs[page] = Tab(page, self._made)
        page.on("close", self._on_close)
        task = asyncio.create_task(self._register(tab))
        self._registering.add(task)
        task.add_done_callback(self._registering.discard)

    async def _register(self, tab: Tab) -> None:
        with contextlib.suppress(Exception):  # it closed at once
            await asyncio.wait_for(tab.register(), REGISTER_S)

    def _on_close(self, page: Page) -> None:
        if tab := self._tabs.pop(page, None):
            tab.close()

    async def settled(self) -> None:
        """Until the tabs that exist are known by their ids."""
        if self._registering:
            await asyncio.wait(self._registering, timeout=REGISTER_S)

    @property
    def tabs(self) -> list[Tab]:
        """In the order in which they were opened; the index of a tab is its place here."""
        return list(self._tabs.values())

    async def targets(self) -> dict[str, dict[str, Any]]:
        """Pages by id, as the browser itself knows them: no page is asked."""
        found = (await self.session.send("Target.getTargets"))["targetInfos"]
        context = next((tab["browserContextId"] for tab in found if tab["targetId"] in self._ids()), None)
        return {
            target["targetId"]: target
            for target in found
            if target["type"] == "page" and target.get("browserContextId") == context
        }

    def _ids(self) -> set[str]:
        return {tab.id for tab in self._tabs.values()}

    def index(self, tab: Tab) -> int:
        return self.tabs.index(tab)

    async def opened(self, before: set[str]) -> list[Tab]:
        """Tabs that are there now and were not before."""
        new = set(await self.targets()) - before
        if new - self._ids():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while new - self._ids():
                        await asyncio.sleep(0.01)
        return [tab for tab in self.tabs if tab.id in new]

    async def tab_of(self, page: Page) -> Tab:
        self._on_page(page)
        tab = self._tabs[page]
        await asyncio.wait_for(tab.ready.wait(), REGISTER_S)
        return tab

    async def choose(self, wanted: str | int | None) -> Tab:
        """The tab with this index or id; the one in front when none is named.

        Raises:
            SandboxError: `tab_not_found`.
        """
        tabs = self.tabs
        if wanted is None:
            return await self.foreground()
        for index, tab in enumerate(tabs):
            if str(wanted) in (str(index), tab.id):
                return tab
        raise SandboxError("tab_not_found", f"there is no tab {str(wanted)[:64]}; {len(tabs)} are open")

    async def foreground(self) -> Tab:
        """The tab that people see. One that shows nothing because it hangs is taken before those that are hidden."""
        tabs = self.tabs
        if not tabs:
            return await self.tab_of(await self.context.new_page())
        if len(tabs) == 1:
            return tabs[0]
        sights = await asyncio.gather(*(tab.sight() for tab in tabs))

        def rank(pair: tuple[Tab, int | None]) -> tuple[float, int]:
            tab, sight = pair
            # A tab under an interactive call takes itself for visible.
            seen = 0.5 if sight is None else sight * 0.4 if tab.emulated else sight
            return seen, tab.order

        return max(zip(tabs, sights, strict=True), key=rank)[0]


async def _attach(driver: Playwright, cdp_url: str) -> Browser:
    # Without the defaults: focus, downloads and media stay as the person at the desktop has them.
    return await driver.chromium.connect_over_cdp(cdp_url, timeout=ATTACH_S * 1000, no_defaults=True, is_local=True)
