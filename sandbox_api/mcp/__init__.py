"""."""

from sandbox_api.mcp.router import router

__all__ = ["router"]
