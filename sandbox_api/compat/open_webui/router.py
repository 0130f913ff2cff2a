"""All under /terminal-server, with the tools' own OpenAPI document."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi

from sandbox_api import __version__
from sandbox_api.compat.open_webui import panel, tools

router = APIRouter(prefix="/terminal-server", include_in_schema=False)
router.include_router(tools.router)
router.include_router(panel.router)


@router.get("/openapi.json")
async def openapi() -> dict[str, Any]:
    return document()


@cache
def document() -> dict[str, Any]:
    """What Open WebUI reads to know the tools."""
    described = get_openapi(title="Sandbox", version=__version__, routes=tools.router.routes)
    for operations in described["paths"].values():
        for operation in operations.values():
            # Open WebUI shows the model the description alone, where there is one.
            parts = [operation["summary"], operation.get("description")]
            operation["description"] = ". ".join(text for text in parts if text)
    return described
