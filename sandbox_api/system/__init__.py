"""."""

from sandbox_api.system.router import router

__all__ = ["router"]
