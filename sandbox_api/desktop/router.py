"""Routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from sandbox_api.desktop.models import (
    Clipboard,
    DesktopInfo,
    RecordRequest,
    RecordResult,
)
from sandbox_api.envelope import Envelope, ok
from sandbox_api.services import Injected

router = APIRouter()
SIZE = {"schema": {"type": "string"}, "description": "Pixels."}
SCREENSHOT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture",
        "content": {"image/png": {}, "image/jpeg": {}},
        "headers": {f"x-{what}-{side}": SIZE for what in ("screen", "image") for side in ("width", "height")},
    }
}


@router.get("/v1/browser/screenshot", tags=["browser"], response_class=Response, responses=SCREENSHOT)
async def take_screenshot(
    services: Injected,
    format: Literal["png", "jpg", "jpeg"] = "png",
    quality: Annotated[int | None, Query(ge=0, le=100, description="Of a JPEG [80].")] = None,
) -> Response:
    """The whole desktop as a picture: the browser with its frame and whatever else is open."""
    kind = "png" if format == "png" else "jpeg"
    data, width, height = await services.desktop.screenshot(kind, quality)
    sizes = {
        f"x-{what}-{side}": str(n) for what in ("screen", "image") for side, n in (("width", width), ("height", height))
    }
    return Response(data, media_type=f"image/{kind}", headers={**sizes, "cache-control": "no-store"})


@router.post("/v1/display/record", tags=["display"])
async def record(request: RecordRequest, services: Injected) -> Envelope[RecordResult]:
    """Film the desktop: start, stop, or ask for the status."""
    desktop = services.desktop
    if request.action == "start":
        return ok(await desktop.recording.start(request, *await desktop.size()))
    return ok(await desktop.recording.stop() if request.action == "stop" else desktop.recording.status())


@router.get("/v1/desktop/info", tags=["desktop"])
async def info(services: Injected) -> Envelope[DesktopInfo]:
    """Size of the desktop, and where the mouse is."""
    return ok(await services.desktop.info())


@router.get("/v1/desktop/clipboard", tags=["desktop"])
async def clipboard(services: Injected) -> Envelope[Clipboard]:
    """Text of the desktop's clipboard."""
    return ok(Clipboard(text=await services.desktop.clipboard()))


@router.put("/v1/desktop/clipboard", tags=["desktop"])
async def set_clipboard(content: Clipboard, services: Injected) -> Envelope[Clipboard]:
    """Put text into the desktop's clipboard."""
    await services.desktop.set_clipboard(content.text)
    return ok(content)
