"""Routes of tools: one registry, by REST and by MCP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox_api.envelope import Envelope, ok
from sandbox_api.mcp.models import CallResult, ToolInfo, ToolList
from sandbox_api.mcp.service import SERVER
from sandbox_api.mcp.transport import Transport, check
from sandbox_api.services import Injected

router = APIRouter(tags=["mcp"])


@router.get("/v1/mcp/servers", summary="List MCP servers")
async def servers(include_hidden: Annotated[bool, Query(description="There are none.")] = False) -> Envelope[list[str]]:
    """The sandbox's own tools are one server; /mcp is its address for MCP clients."""
    return ok([SERVER])


@router.get("/v1/mcp/{server_name}/tools", summary="List the tools of a server")
async def tools(server_name: str, services: Injected) -> Envelope[ToolList]:
    described = services.mcp.server(server_name).described()
    return ok(ToolList(tools=[ToolInfo.model_validate(tool) for tool in described]))


@router.post("/v1/mcp/{server_name}/tools/{tool_name}", summary="Call a tool")
async def call(
    server_name: str,
    tool_name: str,
    services: Injected,
    arguments: Annotated[dict[str, Any] | None, Body(description="By the tool's input schema.")] = None,
) -> Envelope[CallResult]:
    """What the tool itself reports as an error is in the result, marked by `isError`, as in MCP."""
    outcome = await services.mcp.server(server_name).find(tool_name).call(arguments or {})
    message = "The tool reported an error" if outcome.error else "Operation successful"
    return ok(CallResult.model_validate(outcome.described()), message)


class _Handled(Response):
    """Leaves the answer to the transport."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._transport(scope, receive, send)


async def _endpoint(request: Request, services: Injected) -> Response:
    check(request.scope)
    return _Handled(services.mcp.transport)


for _path in ("/mcp", "/mcp/", "/v1/mcp", "/v1/mcp/"):
    router.add_api_route(
        _path, _endpoint, methods=["GET", "POST", "DELETE"], include_in_schema=False, response_model=None
    )
