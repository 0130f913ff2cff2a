"""The sandbox's capabilities as tools of the Model Context Protocol."""

from __future__ import annotations

from functools import cached_property

from sandbox_api.browser.service import BrowserService
from sandbox_api.code.service import CodeService
from sandbox_api.desktop.service import DesktopService
from sandbox_api.errors import SandboxError
from sandbox_api.file.service import FileService
from sandbox_api.health import Capabilities, Health
from sandbox_api.mcp.registry import Registry
from sandbox_api.mcp.transport import Transport
from sandbox_api.settings import Settings
from sandbox_api.shell.service import ShellService

SERVER = "sandbox"
INSTRUCTIONS = """A sandbox with a shell, files, Python, JavaScript and a real browser on a desktop that people can \
watch. Files of the task lie in {workspace}; paths are absolute. Commands, code and the browser share these files and \
the network of the sandbox: a server that listens on a port here is reached by the browser at http://127.0.0.1:PORT."""


class McpService:
    def __init__(
        self,
        settings: Settings,
        shell: ShellService,
        file: FileService,
        code: CodeService,
        browser: BrowserService,
        desktop: DesktopService,
        capabilities: Capabilities,
    ) -> None:
        self._settings = settings
        self._used = (shell, file, code, browser, desktop, capabilities)

    @cached_property
    def registry(self) -> Registry:
        # Making the schemas takes a moment, which the server's start need not wait for.
        from sandbox_api.mcp.catalogue import registry

        return registry(self._settings, *self._used)

    @cached_property
    def transport(self) -> Transport:
        instructions = INSTRUCTIONS.format(workspace=self._settings.workspace_path)
        return Transport(self.registry, instructions, self._settings.body_bytes)

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
