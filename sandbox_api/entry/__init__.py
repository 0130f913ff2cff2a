"""."""

from sandbox_api.entry.router import router

__all__ = ["router"]
