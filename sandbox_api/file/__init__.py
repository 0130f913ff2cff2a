"""."""

from sandbox_api.file.router import router

__all__ = ["router"]
