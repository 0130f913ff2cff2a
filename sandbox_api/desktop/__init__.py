"""The desktop: picture, mouse, keyboard, clipboard, recording."""

from sandbox_api.desktop.router import router

__all__ = ["router"]
