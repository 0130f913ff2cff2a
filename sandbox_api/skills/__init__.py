"""."""

from sandbox_api.skills.router import router

__all__ = ["router"]
