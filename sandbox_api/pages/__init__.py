"""."""

from sandbox_api.pages.router import router

__all__ = ["router"]
