"""The desktop and the sandbox as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from sandbox_api.mcp.registry import Picture, Result
from sandbox_api.mcp.tools.browser import JPEG_QUALITY, Shot

if TYPE_CHECKING:
    from sandbox_api.services import Services


class Part(BaseModel):
    status: str
    detail: str = ""
    version: str | None = None


class Info(Result):
    workspace: str
    capabilities: dict[str, Part]

    def words(self) -> str:
        parts = [
            f"{name}: " + ", ".join(filter(None, [part.status, part.version, part.detail]))
            for name, part in self.capabilities.items()
        ]
        return "\n".join([f"workspace: {self.workspace}", *parts])


class WholeTools:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def desktop_screenshot(self) -> Shot:
        """Look at the whole desktop: the browser's window with its tabs and dialogs, and other windows."""
        taken = await self._services.desktop.screenshot("jpeg", JPEG_QUALITY)
        shot = Shot(width=taken.width, height=taken.height)
        shot._picture = Picture(taken.data, "image/jpeg")
        return shot

    async def sandbox_info(self) -> Info:
        """Tell where the workspace is, and which parts of the sandbox work now, in which version."""
        capabilities = await self._services.system.capabilities()
        parts = {
            name: Part(status=health.status, detail=health.detail, version=health.version)
            for name, health in capabilities.items()
        }
        return Info(workspace=str(self._services.settings.workspace_path), capabilities=parts)
