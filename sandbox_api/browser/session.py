"""Calls on tabs: a connection that is made when it is first needed, a turn on the tab, a timeout, and hints."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from sandbox_api.browser import devtools
from sandbox_api.browser.connection import Connection
from sandbox_api.browser.downloads import Downloads
from sandbox_api.browser.failures import too_slow, translate
from sandbox_api.browser.models import Outcome, PageState, T
from sandbox_api.browser.rules import Rules
from sandbox_api.browser.tab import Tab
from sandbox_api.errors import SandboxError
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings

if TYPE_CHECKING:
    from playwright.async_api import Page

Choice = str | int | None
"""Index or id of a tab; None is the one in front."""

SETTLE_MS = 3000
# Playwright's own timeouts end a little before ours: they know the reason.
MARGIN_MS = 150


class PageCall:
    """A call that has its turn on the tab. `hints` go out with the answer."""

    def __init__(self, connection: Connection, tab: Tab, what: str, clock: asyncio.Timeout) -> None:
        self.connection = connection
        self.tab = tab
        self.what = what
        self.hints: list[str] = []
        self.state = PageState(tab=tab.id, url=tab.page.url, title="")
        self._clock = clock

    @property
    def page(self) -> Page:
        return self.tab.page

    @property
    def ms(self) -> float:
        """What is left of the call's time, in milliseconds, for Playwright."""
        end = self._clock.when()
        assert end is not None
        return max(50.0, (end - asyncio.get_running_loop().time()) * 1000 - MARGIN_MS)

    def outcome(self, data: T) -> Outcome[T]:
        return Outcome(data, "; ".join(self.hints) or None)


class BrowserSession:
    def __init__(self, settings: Settings, paths: Confinement) -> None:
        self.settings = settings
        self.paths = paths
        self.rules = Rules()
        self.downloads = Downloads(settings.workspace_path / "downloads")
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._lost: set[asyncio.Task[None]] = set()

    @property
    def cdp_url(self) -> str:
        """Raises `browser_unavailable` where there is no browser by design."""
        if not self.settings.cdp_url:
            raise SandboxError("browser_unavailable", "this sandbox has no browser: SANDBOX_CDP_URL is not set")
        return self.settings.cdp_url

    async def version(self) -> devtools.Version:
        """Raises `browser_unavailable`."""
        try:
            return await devtools.version(self.cdp_url)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise SandboxError(
                "browser_unavailable", f"the browser does not answer at {self.cdp_url}: {reason}"
            ) from error

    async def connected(self) -> Connection:
        """The connection, made anew when the browser has gone away since.

        Raises:
            SandboxError: `browser_unavailable`.
        """
        url = self.cdp_url
        async with self._connecting:
            if self._connection is None or not self._connection.alive:
                await self._drop()
                connection = await Connection.open(url)
                try:
                    await self.downloads.attach(connection.session)
                    await self.rules.apply(connection.context)
                except BaseException as error:
                    await connection.close()
                    if isinstance(error, Exception):
                        raise translate(error, "connect", connected=False) from error
                    raise
                self._connection = connection
            return self._connection

    async def disconnect(self) -> None:
        """Leave the browser as it is."""
        async with self._connecting:
            await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()

    @contextmanager
    def translate_errors(self, what: str, connection: Connection) -> Iterator[None]:
        """Whatever the browser refuses inside is raised as a `SandboxError`."""
        from playwright.async_api import Error

        try:
            yield
        except TimeoutError as error:
            raise too_slow(what) from error
        except Error as error:
            raise translate(error, what, connected=connection.alive) from error

    @asynccontextmanager
    async def browser_call(self, what: str, timeout: float) -> AsyncIterator[Connection]:
        """A call on the browser as a whole."""
        connection = await self.connected()
        with self.translate_errors(what, connection):
            async with asyncio.timeout(timeout):
                yield connection

    @asynccontextmanager
    async def page_call(
        self,
        what: str,
        choice: Choice,
        timeout: float,
        *,
        interactive: bool = False,
        exclusive: bool = True,
        revive: bool = False,
    ) -> AsyncIterator[PageCall]:
        """A call on a tab.

        Args:
            what: words for error messages.
            interactive: it uses the page as a person would; tabs that it opens become hints.
            exclusive: it takes its turn; waits do not.
            revive: a crashed page is replaced by a new tab.

        Raises:
            SandboxError: `browser_unavailable`, `tab_not_found`, `browser_timeout` and whatever the call meets.
        """
        connection = await self.connected()
        notes, connection.notes = connection.notes, []
        tab: Tab | None = None
        try:
            with self.translate_errors(what, connection):
                async with asyncio.timeout(timeout) as clock:
                    tab = await connection.choose(choice)
                    if tab.crashed:
                        tab = await self._revived(connection, tab, revive)
                    before, arrived = set(await connection.targets()), self.downloads.count
                    async with tab.turn(exclusive, interactive):
                        call = PageCall(connection, tab, what, clock)
                        call.hints += notes
                        yield call
                        if interactive:
                            await _settle(call)
                    await self._observe(call, before, arrived)
        except SandboxError as error:
            # What else happened often explains the failure.
            error.hint = "; ".join([*notes, *(tab.take_notices() if tab else []), error.hint])
            raise

    async def _revived(self, connection: Connection, tab: Tab, allowed: bool) -> Tab:
        if not allowed:
            raise SandboxError(
                "browser_failed", "the page has crashed", hint="Navigate to open a page again, or close the tab."
            )
        new = await connection.tab_of(await connection.context.new_page())
        await tab.page.close()
        new.notices.append("the page had crashed; a new tab replaces it")
        return new

    async def _observe(self, call: PageCall, before: set[str], arrived: int) -> None:
        """The page's address and title, and what the call brought about elsewhere."""
        connection, tab = call.connection, call.tab
        for other in await connection.opened(before):
            url = other.page.url
            call.hints.append(f"a new tab opened: index {connection.index(other)}, id {other.id}, {url[:200]}")
        if tab.page.is_closed():
            call.hints.append("the tab has closed itself")
        for download in self.downloads.listed()[arrived:]:
            call.hints.append(f"a download started: {download.name}; GET /v1/browser/downloads lists it")
        call.hints += tab.take_notices()
        if here := (await connection.targets()).get(tab.id):
            call.state = PageState(tab=tab.id, url=here["url"], title=here["title"])


async def _settle(call: PageCall) -> None:
    """A page that the call led to shall have begun to show, unless that takes long."""
    if not call.page.is_closed() and not call.tab.crashed:
        with contextlib.suppress(Exception):
            await call.page.wait_for_load_state("domcontentloaded", timeout=min(call.ms, SETTLE_MS))
