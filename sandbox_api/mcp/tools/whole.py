"""The desktop and the sandbox as a whole."""

from __future__ import annotations

from pydantic import BaseModel

from sandbox_api.desktop.service import DesktopService
from sandbox_api.health import Capabilities
from sandbox_api.mcp.registry import Picture, Result
from sandbox_api.mcp.tools.browser import JPEG_QUALITY, Shot


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
    def __init__(self, desktop: DesktopService, capabilities: Capabilities, workspace: str) -> None:
        self._desktop = desktop
        self._capabilities = capabilities
        self._workspace = workspace

    async def desktop_screenshot(self) -> Shot:
        """Look at the whole desktop: the browser's window with its tabs and dialogs, and other windows."""
        taken = await self._desktop.screenshot("jpeg", JPEG_QUALITY)
        shot = Shot(width=taken.width, height=taken.height)
        shot._picture = Picture(taken.data, "image/jpeg")
        return shot

    async def sandbox_info(self) -> Info:
        """Tell where the workspace is, and which parts of the sandbox work now, in which version."""
        capabilities = await self._capabilities.health()
        parts = {
            name: Part(status=health.status, detail=health.detail, version=health.version)
            for name, health in capabilities.items()
        }
        return Info(workspace=self._workspace, capabilities=parts)
