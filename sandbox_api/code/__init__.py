"""."""

from sandbox_api.code.router import router

__all__ = ["router"]
