"""."""

from sandbox_api.browser.router import router

__all__ = ["router"]
