"""The way in to what lies behind: desktop, DevTools, Jupyter, VS Code, programs on ports."""

from sandbox_api.entry.router import router

__all__ = ["router"]
