"""The browser on the desktop. `tab` is a tab's id or index; without it the tab in front is meant."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PrivateAttr

from sandbox_api.browser.models import ClickRequest, FillRequest, KeyRequest, Timed, TypeTextRequest
from sandbox_api.browser.service import BrowserService
from sandbox_api.errors import SandboxError
from sandbox_api.mcp.registry import Picture, Result

JPEG_QUALITY = 80
MOST_ELEMENTS = 300

Tab = Annotated[str | int | None, Field(description="Id or index of a tab [the one in front].")]
Selector = Annotated[str | None, Field(description="CSS selector, or text=…", max_length=4096)]
Index = Annotated[int | None, Field(ge=0, description="Index in browser_elements.")]


class Page(Result):
    url: str
    title: str
    tab: str
    status: int | None = Field(None, description="HTTP status.")
    hint: str | None = Field(None, description="What else happened, such as a tab that opened.")

    def words(self) -> str:
        status = f" (HTTP {self.status})" if self.status else ""
        return f"{self.title or '[no title]'}\n{self.url}{status}" + (f"\n{self.hint}" if self.hint else "")


class Reading(Result):
    content: str
    truncated: bool = False
    hint: str | None = None

    def words(self) -> str:
        return (self.content or "[empty page]") + ("\n[the page goes on]" if self.truncated else "")


class ElementInfo(BaseModel):
    index: int
    role: str
    name: str
    value: str | None = None
    href: str | None = None
    disabled: bool = False
    in_view: bool = True


class Elements(Result):
    elements: list[ElementInfo]
    truncated: bool = False

    def words(self) -> str:
        lines = []
        for one in self.elements:
            marks = [f"value={one.value!r}"] if one.value else []
            marks += [one.href] if one.href else []
            marks += ["disabled"] if one.disabled else []
            marks += [] if one.in_view else ["out of view"]
            lines.append(f"[{one.index}] {one.role} {one.name!r}" + (f"  {', '.join(marks)}" if marks else ""))
        return "\n".join(lines + ["[there are more]"] * self.truncated) or "[nothing to use on this page]"


class Shot(Result):
    width: int | None = None
    height: int | None = None
    format: str = "jpeg"
    _picture: Picture = PrivateAttr()

    def words(self) -> str:
        size = f", {self.width} x {self.height} pixels" if self.width else ""
        return f"[picture{size}]"

    def pictures(self) -> list[Picture]:
        return [self._picture]


class Value(Result):
    value: Any = None
    hint: str | None = None


class TabEntry(BaseModel):
    index: int
    id: str
    url: str
    title: str
    active: bool


class Tabs(Result):
    tabs: list[TabEntry]

    def words(self) -> str:
        return "\n".join(
            f"{'*' if tab.active else ' '} [{tab.index}] {tab.title or '[no title]'}  {tab.url}  (id {tab.id})"
            for tab in self.tabs
        )


class BrowserTools:
    def __init__(self, browser: BrowserService, most: int) -> None:
        self._browser = browser
        self._most = most

    async def _interact(self, request: Timed, tab: Tab) -> Page:
        done = await self._browser.interact(request, tab)
        return Page(**done.data.model_dump(), hint=done.hint)

    async def browser_navigate(
        self,
        url: Annotated[str, Field(min_length=1, max_length=65536, description="http, https, file or about:blank.")],
        tab: Tab = None,
    ) -> Page:
        """Open an address in the browser and wait until it has loaded. browser_read then returns its content."""
        done = await self._browser.navigate(url, tab=tab)
        return Page(**done.data.model_dump(), hint=done.hint)

    async def browser_read(self, format: Literal["markdown", "text"] = "markdown", tab: Tab = None) -> Reading:
        """Read the page: its main content as Markdown with links, or all of its visible text."""
        if format == "markdown":
            page = await self._browser.markdown(tab=tab)
            content, hint = page.data.markdown, page.hint
        else:
            text = await self._browser.text(tab=tab)
            content, hint = text.data, text.hint
        return Reading(content=content[: self._most], truncated=len(content) > self._most, hint=hint)

    async def browser_elements(self, tab: Tab = None) -> Elements:
        """List links, buttons and fields of the page, with the index that browser_click and browser_type take."""
        found = (await self._browser.elements(tab=tab)).data
        elements = [
            ElementInfo(
                index=one.index, role=one.role or one.tag, name=one.name or one.text or one.placeholder or "",
                value=one.value, href=one.href, disabled=one.disabled, in_view=one.in_viewport,
            )
            for one in found[:MOST_ELEMENTS]
        ]  # fmt: skip
        return Elements(elements=elements, truncated=len(found) > MOST_ELEMENTS)

    async def browser_click(
        self,
        index: Index = None,
        selector: Selector = None,
        x: Annotated[float | None, Field(description="Place in the page, in pixels, when there is no element.")] = None,
        y: float | None = None,
        tab: Tab = None,
    ) -> Page:
        """Click an element of the page, by index (from browser_elements) or selector, or a place by x and y."""
        if index is None and selector is None and (x is None or y is None):
            raise SandboxError("invalid_request", "there is nothing to click", hint="Give index, selector, or x and y.")
        return await self._interact(ClickRequest(selector=selector, index=index, x=x, y=y), tab)

    async def browser_type(
        self,
        text: Annotated[str, Field(max_length=1_000_000)],
        index: Index = None,
        selector: Selector = None,
        press_enter: bool = False,
        tab: Tab = None,
    ) -> Page:
        """Put text into a field of the page, replacing what it holds; without a field, type where the focus is."""
        if index is None and selector is None:
            page = await self._interact(TypeTextRequest(text=text), tab)
        else:
            page = await self._interact(FillRequest(text=text, selector=selector, index=index), tab)
        if press_enter:
            page = await self._interact(KeyRequest(key="Enter", selector=selector, index=index), tab)
        return page

    async def browser_screenshot(
        self,
        full_page: Annotated[bool, Field(description="The whole page, not only what is in view.")] = False,
        selector: Annotated[Selector, Field(description="Only this element.")] = None,
        tab: Tab = None,
    ) -> Shot:
        """Look at the page."""
        done = await self._browser.screenshot_bytes(
            "jpeg", full_page=full_page, quality=JPEG_QUALITY, selector=selector, tab=tab
        )
        shot = Shot()
        shot._picture = Picture(done.data, "image/jpeg")
        return shot

    async def browser_evaluate(
        self,
        expression: Annotated[str, Field(min_length=1, description="An expression, statements, or a function.")],
        tab: Tab = None,
    ) -> Value:
        """Run JavaScript in the page and return its value."""
        done = await self._browser.evaluate(expression, tab=tab)
        return Value(value=done.data, hint=done.hint)

    async def browser_tabs(
        self,
        action: Literal["list", "open", "switch", "close"] = "list",
        tab: Annotated[Tab, Field(description="Which tab to switch to or close.")] = None,
        url: Annotated[str | None, Field(description="What to open in a new tab.")] = None,
    ) -> Tabs:
        """List the browser's tabs; open, switch to or close one."""
        if action in ("switch", "close") and tab is None:
            raise SandboxError("invalid_request", f"which tab to {action} is missing", hint="Give tab.")
        if action == "open":
            await self._browser.open_tab(url)
        elif action == "switch":
            await self._browser.activate_tab(tab)
        elif action == "close":
            await self._browser.close_tab(tab)
        return Tabs(tabs=[TabEntry(**one.model_dump()) for one in await self._browser.tabs()])
