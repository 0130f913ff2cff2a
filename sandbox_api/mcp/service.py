"""The sandbox's capabilities as tools of the Model Context Protocol."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from sandbox_api.errors import SandboxError
from sandbox_api.health import Health
from sandbox_api.mcp.registry import Registry
from sandbox_api.mcp.tools import registry
from sandbox_api.mcp.transport import Transport

if TYPE_CHECKING:
    from sandbox_api.services import Services

SERVER = "sandbox"
INSTRUCTIONS = """A sandbox with a shell, files, Python, JavaScript and a real browser on a desktop that people can \
watch. Files of the task lie in {workspace}; paths are absolute. Commands, code and the browser share these files and \
the network of the sandbox: a server that listens on a port here is reached by the browser at http://127.0.0.1:PORT."""


class McpService:
    def __init__(self, services: Services) -> None:
        self._services = services

    @cached_property
    def registry(self) -> Registry:
        return registry(self._services)

    @cached_property
    def transport(self) -> Transport:
        settings = self._services.settings
        instructions = INSTRUCTIONS.format(workspace=settings.workspace_path)
        return Transport(self.registry, instructions, settings.body_bytes)

    async def start(self) -> None:
        """Nothing to start: tools and transport are made when they are first needed."""

    async def stop(self) -> None:
        if "transport" in vars(self):
            await self.transport.stop()

    async def health(self) -> Health:
        return Health(status="ready", detail=f"{len(self.registry.tools)} tools, streamable HTTP", address="/mcp")

    def server(self, name: str) -> Registry:
        """The tools of a server; there is one.

        Raises:
            SandboxError: `tool_not_found`.
        """
        if name != SERVER:
            raise SandboxError("tool_not_found", f"there is no MCP server {name[:100]}; there is {SERVER}")
        return self.registry
