"""One tab: its page, its bounded logs, and whose turn it is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sandbox_api.browser.exchange import Exchange

if TYPE_CHECKING:
    from playwright.async_api import CDPSession, ConsoleMessage, Dialog, Page, Request, Response

RING = 1000
LONGEST_LINE = 10_000
GLANCE_S = 0.5
SIGHT = "document.visibilityState !== 'visible' ? 0 : document.hasFocus() ? 2 : 1"


class Tab:
    """`notices` become the hint of the next answer: dialogs, crashes."""

    def __init__(self, page: Page, order: int) -> None:
        self.page = page
        self.order = order
        self.id = ""
        self.title = ""
        self.session: CDPSession | None = None
        self.console: deque[dict[str, Any]] = deque(maxlen=RING)
        self.exchanges: deque[Exchange] = deque(maxlen=RING)
        self.elements: list[str] = []
        self.notices: deque[str] = deque(maxlen=20)
        self.crashed = False
        self.emulated = 0
        self.ready = asyncio.Event()
        self._open: dict[Request, Exchange] = {}
        self._dialog: Dialog | None = None
        self._turn = asyncio.Lock()
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        page.on("dialog", self._on_dialog)
        page.on("crash", self._on_crash)
        page.on("framenavigated", self._on_navigated)
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        page.on("requestfinished", self._on_finished)
        page.on("requestfailed", self._on_failed)

    async def register(self) -> None:
        """Learn the id under which DevTools know the tab."""
        session = await self.page.context.new_cdp_session(self.page)
        self.id = (await session.send("Target.getTargetInfo"))["targetInfo"]["targetId"]
        self.session = session
        self.ready.set()

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        await self.ready.wait()
        assert self.session
        answer: dict[str, Any] = await self.session.send(method, parameters)
        return answer

    @asynccontextmanager
    async def turn(self, exclusive: bool, interactive: bool) -> AsyncIterator[None]:
        """Calls that change the page come one after the other. A dialog that is open is dismissed first.

        While an interactive call lasts, the page is told that it has the focus: hidden tabs draw nothing, and
        Playwright waits for that. The tab that people look at stays in front.
        """
        async with self._turn if exclusive else contextlib.nullcontext():
            self._calls += 1
            try:
                await self._dismiss()
                if not interactive or self.crashed:
                    yield
                    return
                self.emulated += 1
                await self.send("Emulation.setFocusEmulationEnabled", enabled=True)
                try:
                    yield
                finally:
                    self.emulated -= 1
                    if not self.emulated and not self.page.is_closed():
                        self._later(self.send("Emulation.setFocusEmulationEnabled", enabled=False))
            finally:
                self._calls -= 1

    async def sight(self) -> int | None:
        """2 has the focus, 1 is visible, 0 is hidden; None: the page does not answer."""
        if self.crashed or self._dialog:
            return None
        try:
            async with asyncio.timeout(GLANCE_S):
                answer = await self.send("Runtime.evaluate", expression=SIGHT, returnByValue=True)
        except Exception:  # whatever it is, the tab cannot be seen
            return None
        value = answer.get("result", {}).get("value")
        return value if isinstance(value, int) else None

    def interrupt(self) -> None:
        """End the script that runs in the page."""
        self._later(self.send("Runtime.terminateExecution"))

    def forget(self, object_id: str) -> None:
        """Let the page free a value that it kept for us."""
        self._later(self.send("Runtime.releaseObject", objectId=object_id))

    def take_notices(self) -> list[str]:
        taken = list(self.notices)
        self.notices.clear()
        return taken

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _later(self, work: Any) -> None:
        async def quietly() -> None:
            with contextlib.suppress(Exception):  # the page may have gone
                await asyncio.wait_for(work, GLANCE_S * 4)

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dismiss(self) -> None:
        dialog, self._dialog = self._dialog, None
        if dialog is None:
            return
        # Leaving a page is what was asked for; other questions are answered with no.
        leaving = dialog.type == "beforeunload"
        with contextlib.suppress(Exception):  # a person has answered it already
            async with asyncio.timeout(GLANCE_S * 4):
                await (dialog.accept() if leaving else dialog.dismiss())
            done = "accepted" if leaving else "dismissed"
            self.notices.append(f"a dialog was {done}: {dialog.type} {dialog.message[:500]!r}")

    def _on_dialog(self, dialog: Dialog) -> None:
        # While nobody calls, the dialog belongs to the person at the desktop.
        self._dialog = dialog
        if self._calls:
            self._later(self._dismiss())

    def _on_console(self, message: ConsoleMessage) -> None:
        place = message.location
        self._log(
            message.type, message.text, place.get("url", ""), place.get("lineNumber", 0), place.get("columnNumber", 0)
        )

    def _on_error(self, error: Any) -> None:
        self._log("error", getattr(error, "stack", None) or str(error), self.page.url, 0, 0)

    def _log(self, kind: str, text: str, url: str, line: int, column: int) -> None:
        if len(text) > LONGEST_LINE:
            text = text[:LONGEST_LINE] + "…"
        self.console.append(
            {"type": kind, "text": text, "url": url[:2000], "line": line, "column": column, "timestamp": time.time()}
        )

    def _on_crash(self, _: Page) -> None:
        self.crashed = True
        self._dialog = None
        self.notices.append("the page has crashed; navigate to open a page again")

    def _on_navigated(self, frame: Any) -> None:
        if frame.parent_frame is None:
            self.elements = []

    def _on_request(self, request: Request) -> None:
        exchange = Exchange.of(request)
        self.exchanges.append(exchange)
        if len(self._open) > RING:
            self._open.clear()
        self._open[request] = exchange

    def _on_response(self, response: Response) -> None:
        if exchange := self._open.get(response.request):
            exchange.answered(response)

    def _on_finished(self, request: Request) -> None:
        if exchange := self._open.pop(request, None):
            exchange.ended(request, None)

    def _on_failed(self, request: Request) -> None:
        if exchange := self._open.pop(request, None):
            exchange.ended(request, request.failure or "failed")
