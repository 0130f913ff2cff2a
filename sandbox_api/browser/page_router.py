"""/v1/browser/page: what is done on a page and what it shows."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from sandbox_api.browser import models
from sandbox_api.browser.models import Outcome, PageState, T, Timed
from sandbox_api.desktop import models as display
from sandbox_api.desktop.models import RecordResult
from sandbox_api.envelope import Envelope, ok
from sandbox_api.errors import SandboxError
from sandbox_api.services import Injected

TabQuery = Annotated[
    str | None, Query(max_length=64, description="Index or id of the tab; without it, the one in front.")
]
MOST_RECORDED_S = 600
router = APIRouter(prefix="/v1/browser/page", tags=["browser page"])


def envelope(outcome: Outcome[T], message: str = "Operation successful") -> Envelope[T]:
    return ok(outcome.data, message, outcome.hint)


@router.post("/navigate")
async def navigate(
    request: models.NavigateRequest, services: Injected, tab: TabQuery = None
) -> Envelope[models.Navigation]:
    """Open an address."""
    return envelope(await services.browser.navigate(request.url, request.wait_until, request.timeout, tab))


@router.post("/back")
async def back(services: Injected, tab: TabQuery = None) -> Envelope[models.Navigation]:
    """One page back in the tab's history."""
    return envelope(await services.browser.back(tab=tab))


@router.post("/forward")
async def forward(services: Injected, tab: TabQuery = None) -> Envelope[models.Navigation]:
    """One page forward in the tab's history."""
    return envelope(await services.browser.forward(tab=tab))


@router.post("/reload")
async def reload(services: Injected, tab: TabQuery = None) -> Envelope[models.Navigation]:
    """Load the page again."""
    return envelope(await services.browser.reload(tab=tab))


INTERACTIONS: tuple[tuple[str, type[Timed], str], ...] = (
    (
        "click",
        models.ClickRequest,
        "Click an element, named by selector or index, or a place. Waits until it can be clicked.",
    ),
    ("fill", models.FillRequest, "Set the value of a field; what it held is replaced."),
    ("type", models.TypeTextRequest, "Type key by key, into an element or where the focus is."),
    ("press_key", models.KeyRequest, "Press a key."),
    ("hot_key", models.HotKeyRequest, "Press several keys together."),
    ("hover", models.HoverRequest, "Move the mouse over an element or to a place."),
    ("select_option", models.SelectOptionRequest, "Choose an option of a list, by value, label or index."),
    ("check", models.CheckRequest, "Tick a checkbox or radio button."),
    ("uncheck", models.UncheckRequest, "Untick a checkbox."),
    ("upload_file", models.UploadFileRequest, "Choose files in a file field, or in the dialog that a button opens."),
    ("fill_form", models.FormFillRequest, "Set several fields, checkboxes and lists."),
    ("scroll", models.ScrollRequest, "Scroll by some pixels."),
    ("scroll_to", models.ScrollToRequest, "Scroll to a place."),
    ("scroll_to_element", models.ScrollToElementRequest, "Scroll until an element can be seen."),
)


def _add_interaction(path: str, model: type[Timed], description: str) -> None:
    async def interact(request: Timed, services: Injected, tab: TabQuery = None) -> Envelope[PageState]:
        return envelope(await services.browser.interact(request, tab))

    interact.__annotations__["request"] = model
    # `type` would hide Python's own in clients that are generated.
    name = "type_text" if path == "type" else path
    router.add_api_route(f"/{path}", interact, methods=["POST"], name=name, description=description)


for _interaction in INTERACTIONS:
    _add_interaction(*_interaction)


@router.get(
    "/screenshot",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/jpeg": {}}, "description": "The picture"}},
)
async def screenshot(
    services: Injected,
    full_page: bool = False,
    format: Literal["png", "jpeg", "jpg"] = "png",
    quality: Annotated[int | None, Query(ge=0, le=100)] = None,
    selector: Annotated[str | None, Query(max_length=4096)] = None,
    tab: TabQuery = None,
) -> Response:
    """The page as a picture."""
    kind: Literal["png", "jpeg"] = "png" if format == "png" else "jpeg"
    taken = await services.browser.screenshot_bytes(kind, full_page, quality, selector, tab=tab)
    return Response(taken.data, media_type=f"image/{kind}")


@router.post("/record")
async def record(request: models.RecordRequest, services: Injected) -> Envelope[RecordResult]:
    """Film the desktop, with the page as people see it."""
    recording, action = services.desktop.recording, request.action
    if action in ("pause", "resume"):
        raise SandboxError("not_implemented", "a recording cannot be paused", hint="Stop it, and start another one.")
    if action in ("once", "start"):
        most = MOST_RECORDED_S if action == "start" else request.duration + 5
        # H.264 counts the other way: 51 is worst.
        crf = round((100 - request.quality) * 0.51)
        wanted = display.RecordRequest(
            action="start", save_path=request.save_path, fps=request.fps, crf=crf, max_duration=most
        )
        started = await recording.start(wanted, *await services.desktop.size())
        if action == "start":
            return ok(started)
        await asyncio.sleep(request.duration)
    return ok(recording.status() if action == "status" else await recording.stop())


@router.get("/html")
async def html(services: Injected, outer: bool = False, tab: TabQuery = None) -> Envelope[str]:
    """The document as it is now."""
    return envelope(await services.browser.html(outer, tab))


@router.get("/text")
async def text(services: Injected, tab: TabQuery = None) -> Envelope[str]:
    """What a person could read."""
    return envelope(await services.browser.text(tab))


@router.get("/markdown")
async def markdown(services: Injected, tab: TabQuery = None) -> Envelope[models.Markdown]:
    """The main content as Markdown."""
    return envelope(await services.browser.markdown(tab))


@router.get("/elements")
async def elements(services: Injected, tab: TabQuery = None) -> Envelope[list[models.Element]]:
    """What can be clicked or filled, with an index and a selector for the other routes."""
    return envelope(await services.browser.elements(tab))


@router.get("/console")
async def console(services: Injected, clear: bool = False, tab: TabQuery = None) -> Envelope[list[dict[str, Any]]]:
    """The last 1000 messages of the console and uncaught errors, oldest first."""
    return ok(await services.browser.console(clear, tab))


@router.post("/console/export")
async def export_console(
    request: models.ExportConsoleRequest, services: Injected, tab: TabQuery = None
) -> Envelope[models.Saved]:
    """The same as a JSON file."""
    return ok(await services.browser.export_console(request.save_path, request.clear, tab))


@router.post("/evaluate")
async def evaluate(request: models.EvaluateRequest, services: Injected, tab: TabQuery = None) -> Envelope[Any]:
    """Run JavaScript in the page and return its value. What runs without end is ended by the timeout."""
    return envelope(await services.browser.evaluate(request.expression, request.timeout, tab))


@router.post("/find_text")
async def find_text(
    request: models.FindTextRequest, services: Injected, tab: TabQuery = None
) -> Envelope[list[models.Found]]:
    """Where a text occurs, whatever its case."""
    return envelope(await services.browser.find_text(request.keyword, tab, request.timeout))


@router.post("/wait")
async def wait(request: models.WaitRequest, services: Injected, tab: TabQuery = None) -> Envelope[dict[str, Any]]:
    """Wait for something to happen. Other calls on the tab go on meanwhile."""
    return envelope(await services.browser.wait(request, tab))
