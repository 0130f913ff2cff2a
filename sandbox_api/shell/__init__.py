"""Commands, their sessions, and terminals."""

from sandbox_api.shell.router import router

__all__ = ["router"]
