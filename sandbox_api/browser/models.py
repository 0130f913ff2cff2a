"""Requests and results. Times are seconds unless a field says otherwise; lengths are CSS pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, StringConstraints, model_validator

T = TypeVar("T")
LONGEST_TEXT = 1_000_000
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]
Selector = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=65536)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Timeout = Annotated[float, Field(gt=0, le=600, description="Seconds until the call is given up.")]
Until = Literal["load", "domcontentloaded", "networkidle", "commit"]
Headers = Annotated[dict[str, str], Field(max_length=100)]


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a call returns. `hint` says what else happened: tabs that opened, dialogs, downloads."""

    data: T
    hint: str | None = None


class Timed(BaseModel):
    timeout: Timeout = 10


class Target(Timed):
    """An element: by `selector` (CSS, `text=…`, XPath), or by `index` in the list of elements."""

    selector: Selector | None = None
    index: int | None = Field(None, ge=0, description="Index in GET /v1/browser/page/elements.")


class RequiredTarget(Target):
    @model_validator(mode="after")
    def _has_one(self) -> RequiredTarget:
        if self.selector is None and self.index is None:
            raise ValueError("give selector or index")
        return self


class PointTarget(Target):
    x: float | None = Field(None, ge=0, le=100_000, description="Instead of an element: place in the viewport.")
    y: float | None = Field(None, ge=0, le=100_000)

    @model_validator(mode="after")
    def _has_place(self) -> PointTarget:
        if self.selector is None and self.index is None and (self.x is None or self.y is None):
            raise ValueError("give selector, index, or x and y")
        return self


class NavigateRequest(BaseModel):
    url: Url = Field(description="http, https, data, about:blank, or file within the reachable folders.")
    wait_until: Until = "load"
    timeout: Timeout = 30


class ClickRequest(PointTarget):
    button: Literal["left", "right", "middle"] = "left"
    click_count: int = Field(1, ge=1, le=10)


class HoverRequest(PointTarget):
    pass


class FillRequest(RequiredTarget):
    text: Text


class TypeTextRequest(Target):
    """Without an element, the text goes where the focus is."""

    text: Text
    delay: float = Field(0, ge=0, le=10_000, description="Milliseconds between keystrokes.")


class KeyRequest(Target):
    key: str = Field(min_length=1, max_length=64, description="Such as Enter, ArrowDown, a, Control+A.")


class HotKeyRequest(Timed):
    keys: list[Annotated[str, StringConstraints(min_length=1, max_length=32)]] = Field(min_length=1, max_length=8)


class SelectOptionRequest(RequiredTarget):
    """`index` is the option's when a selector is given."""

    value: str | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _has_option(self) -> SelectOptionRequest:
        if self.value is None and self.label is None and (self.index is None or self.selector is None):
            raise ValueError("give value, label, or index with selector")
        return self


class CheckRequest(RequiredTarget):
    pass


class UncheckRequest(RequiredTarget):
    pass


class UploadFileRequest(RequiredTarget):
    files: list[PathText] = Field(min_length=1, max_length=100, description="Absolute paths.")


class FormItem(BaseModel):
    """A field and its value: text, the value or label of an option, or true and false for a checkbox."""

    selector: Selector | None = None
    index: int | None = Field(None, ge=0)
    value: bool | Text | int | float | None = None
    text: Text | None = Field(None, description="Another name of `value`.")

    @model_validator(mode="after")
    def _complete(self) -> FormItem:
        if self.selector is None and self.index is None:
            raise ValueError("give selector or index")
        if self.value is None and self.text is None:
            raise ValueError("give value")
        return self


class FormFillRequest(Timed):
    items: list[FormItem] = Field(min_length=1, max_length=200)


class ScrollRequest(Timed):
    direction: Literal["up", "down", "left", "right"] = "down"
    amount: int = Field(300, ge=0, le=1_000_000)


class ScrollToRequest(Timed):
    x: int = Field(0, ge=0)
    y: int = Field(0, ge=0)


class ScrollToElementRequest(RequiredTarget):
    pass


class EvaluateRequest(BaseModel):
    expression: Text = Field(description="JavaScript: an expression, statements, or a function that is called.")
    timeout: Timeout = 30


class FindTextRequest(Timed):
    keyword: str = Field(min_length=1, max_length=1000)


class WaitRequest(BaseModel):
    type: Literal["selector", "load", "url", "network_idle", "download", "function", "response", "request", "timeout"]
    selector: Selector | None = None
    state: str | None = Field(
        None, description="selector: visible, hidden, attached, detached; load: load, domcontentloaded, networkidle."
    )
    url: Url | None = Field(None, description="A glob such as **/done.")
    save_path: PathText | None = Field(None, description="Where a download is copied to.")
    timeout: Timeout = 30
    expression: Text | None = None
    polling: float | None = Field(None, gt=0, le=60_000, description="Milliseconds between tries of a function.")
    url_pattern: Url | None = Field(None, description="A glob of the request's or response's URL.")

    @model_validator(mode="after")
    def _complete(self) -> WaitRequest:
        needed = {
            "selector": self.selector,
            "url": self.url or self.url_pattern,
            "function": self.expression,
            "response": self.url_pattern or self.url,
            "request": self.url_pattern or self.url,
        }
        if self.type in needed and not needed[self.type]:
            raise ValueError(f"waiting for {self.type} needs more: the URL pattern, selector or expression")
        states = {
            "selector": ("visible", "hidden", "attached", "detached"),
            "load": ("load", "domcontentloaded", "networkidle"),
        }
        if self.state is not None and self.type in states and self.state not in states[self.type]:
            raise ValueError(f"state is one of {', '.join(states[self.type])}")
        return self


class ScreenshotRequest(BaseModel):
    path: PathText | None = Field(None, description="Absolute path of the file; without it the picture is returned.")
    full_page: bool = False
    format: Literal["png", "jpeg", "jpg"] | None = Field(None, description="By the path's ending, else png.")
    quality: int | None = Field(None, ge=0, le=100, description="Of a JPEG.")
    selector: Selector | None = Field(None, description="Only this element.")
    timeout: Timeout = 30


class Screenshot(BaseModel):
    path: str | None
    format: Literal["png", "jpeg"]
    size: int = Field(description="Bytes.")
    width: int = Field(description="Pixels.")
    height: int
    base64: str | None = Field(None, description="The picture, when no path was given.")


class RecordRequest(BaseModel):
    action: Literal["once", "start", "pause", "resume", "stop", "status"] = Field(
        "once", description="once: `duration` seconds."
    )
    save_path: PathText | None = Field(None, description="Absolute, .mp4 or .mkv.")
    duration: float = Field(10, gt=0, le=600)
    fps: int = Field(15, ge=1, le=30)
    quality: int = Field(80, ge=0, le=100)


class PageState(BaseModel):
    tab: str = Field(description="Id of the tab.")
    url: str
    title: str


class Navigation(PageState):
    status: int | None = Field(None, description="HTTP status; none for files, data and pages from the cache.")


class Markdown(PageState):
    markdown: str


class Box(BaseModel):
    x: float
    y: float
    width: float
    height: float


class Element(BaseModel):
    index: int
    tag: str
    text: str
    role: str
    name: str = Field("", description="What assistive technology would read.")
    type: str | None = None
    value: str | None = None
    placeholder: str | None = None
    href: str | None = None
    checked: bool | None = None
    disabled: bool = False
    in_viewport: bool
    bounding_box: Box
    selector: str


class Found(BaseModel):
    index: int
    text: str = Field(description="The text around the occurrence.")
    tag: str
    selector: str
    visible: bool
    bounding_box: Box


class TabInfo(BaseModel):
    index: int
    id: str
    url: str
    title: str
    active: bool
    crashed: bool = False


class CreatePageRequest(BaseModel):
    url: Url | None = None
    timeout: Timeout = 30


class CookieSetRequest(BaseModel):
    cookies: list[dict[str, Any]] = Field(min_length=1, max_length=1000)


class StateRequest(BaseModel):
    path: PathText


class StateSaved(BaseModel):
    path: str
    size: int
    cookies: int
    origins: int


class HeadersRequest(BaseModel):
    headers: Headers


class ScopedHeadersRequest(BaseModel):
    origin: Url = Field(description="Such as https://example.com")
    headers: Headers


class MockResponse(BaseModel):
    status: int = Field(200, ge=100, le=599)
    headers: Headers = Field(default_factory=dict)
    body: Text = ""
    content_type: str = Field("text/plain", max_length=200)


class NetworkRouteRequest(BaseModel):
    url_pattern: Url = Field(description="A glob such as **/api/*.")
    response: MockResponse | None = None
    abort: bool = False


class NetworkRouteRemoveRequest(BaseModel):
    url_pattern: Url


class ExportRequest(BaseModel):
    save_path: PathText


class ExportConsoleRequest(ExportRequest):
    clear: bool = False


class Saved(BaseModel):
    path: str
    size: int
    count: int


class Download(BaseModel):
    id: str
    url: str
    name: str
    state: Literal["in_progress", "completed", "canceled"]
    path: str | None = Field(None, description="Set when it is complete.")
    received: int = 0
    size: int = Field(0, description="Bytes; 0 while unknown.")
    started: float = Field(description="Unix time.")


class Viewport(BaseModel):
    width: int
    height: int


class BrowserInfo(BaseModel):
    user_agent: str
    cdp_url: str = Field(description="Websocket for external clients, such as Playwright's connect_over_cdp.")
    cdp_http_url: str = Field(description="The same for clients that ask for /json/version first.")
    vnc_url: str
    cdp_ui_url: str | None = None
    viewport: Viewport = Field(description="The desktop.")
    page_viewport: Viewport | None = Field(None, description="The page inside the browser's window.")
    version: str
    protocol_version: str


class Resolution(BaseModel):
    width: int = Field(ge=320, le=7680)
    height: int = Field(ge=200, le=4320)


class BrowserConfigRequest(BaseModel):
    resolution: Resolution | None = None


class RestartRequest(BaseModel):
    mode: Literal["soft", "hard"] = Field("hard", description="soft: only our connection to the browser is renewed.")
    url_blocklist: list[str] | None = None
    url_allowlist: list[str] | None = None
    allow_file_selection_dialogs: bool | None = None
    locale: str | None = None


class Restarted(BaseModel):
    mode: Literal["soft", "hard"]
    version: str
    seconds: float
