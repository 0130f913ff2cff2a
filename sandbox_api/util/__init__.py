"""Helpers around documents."""

from sandbox_api.util.router import router

__all__ = ["router"]
