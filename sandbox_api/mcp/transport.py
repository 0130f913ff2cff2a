"""The registry over streamable HTTP, by the official library.

Without sessions, and answered as JSON: every request stands for itself, so nothing breaks when a client forgets its
session id, the sandbox restarts, or calls come over several connections. Nothing is imported before the first client
comes: the library is large.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Receive, Scope, Send

from sandbox_api import __version__
from sandbox_api.errors import SandboxError
from sandbox_api.mcp.registry import Registry

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

JSON = "application/json"
ACCEPTED = {"", "*/*", "application/*", JSON}


def _manager(registry: Registry, instructions: str, body_bytes: int) -> StreamableHTTPSessionManager:
    import mcp_types as types
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp.shared.exceptions import MCPError

    tools = [types.Tool.model_validate(tool) for tool in registry.described()]
    Context = ServerRequestContext[dict[str, object]]  # noqa: N806 - a type

    async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(_: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            tool = registry.find(params.name)
        except SandboxError as error:
            raise MCPError(types.INVALID_PARAMS, error.message) from error
        outcome = await tool.call(params.arguments or {})
        return types.CallToolResult.model_validate(outcome.described())

    server = Server(
        "sandbox",
        title="AI Sandbox",
        version=__version__,
        instructions=instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    return StreamableHTTPSessionManager(
        server,
        json_response=True,
        stateless=True,
        # `access` has checked host and origin already, by this sandbox's settings.
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=body_bytes,
    )


class Transport:
    def __init__(self, registry: Registry, instructions: str, body_bytes: int) -> None:
        self._made = (registry, instructions, body_bytes)
        self._manager: StreamableHTTPSessionManager | None = None
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def _ready(self) -> StreamableHTTPSessionManager:
        async with self._lock:
            if self._manager is None:
                manager = await asyncio.to_thread(_manager, *self._made)
                started = asyncio.Event()
                self._task = asyncio.create_task(self._run(manager, started))
                await started.wait()
                self._manager = manager
            return self._manager

    @staticmethod
    async def _run(manager: StreamableHTTPSessionManager, started: asyncio.Event) -> None:
        async with manager.run():
            started.set()
            await asyncio.Event().wait()

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        manager = await self._ready()
        await manager.handle_request(scope, receive, send)


def check(scope: Scope) -> None:
    """Refuse with a clear message what the library refuses with a terse one; accept what it need not refuse.

    Raises:
        SandboxError: `method_not_allowed`, `not_acceptable`, `unsupported_media_type`.
    """
    headers = Headers(scope=scope)
    if scope["method"] != "POST":
        raise SandboxError(
            "method_not_allowed",
            f"{scope['method']} is not needed here: this MCP server keeps no sessions and sends nothing by itself",
            hint="Give this address to an MCP client (streamable HTTP), or POST JSON-RPC messages.",
        )
    if headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise SandboxError("unsupported_media_type", "MCP messages are JSON", hint=f"Send Content-Type: {JSON}.")
    wanted = {part.partition(";")[0].strip().lower() for part in headers.get("accept", "").split(",")}
    if not wanted & ACCEPTED:
        raise SandboxError("not_acceptable", "answers are JSON", hint=f"Send Accept: {JSON}, text/event-stream.")
    MutableHeaders(scope=scope)["accept"] = f"{JSON}, text/event-stream"
