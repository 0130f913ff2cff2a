"""Routes of helpers."""

from __future__ import annotations

from fastapi import APIRouter

from sandbox_api.envelope import Envelope, ok
from sandbox_api.services import Injected
from sandbox_api.util.models import ConvertRequest

router = APIRouter(prefix="/v1/util", tags=["util"])


@router.post("/convert_to_markdown", summary="A document as Markdown")
async def convert_to_markdown(request: ConvertRequest, services: Injected) -> Envelope[str]:
    return ok(await services.util.convert_to_markdown(request.uri))
