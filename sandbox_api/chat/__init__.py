"""."""

from sandbox_api.chat.router import router

__all__ = ["router"]
