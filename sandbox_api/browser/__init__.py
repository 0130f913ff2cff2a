"""The headed Chromium of the desktop, page by page: the browser that people see over VNC."""

from sandbox_api.browser.router import router

__all__ = ["router"]
