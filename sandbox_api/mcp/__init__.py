"""The capabilities as tools, for MCP clients and by REST."""

from sandbox_api.mcp.router import router

__all__ = ["router"]
