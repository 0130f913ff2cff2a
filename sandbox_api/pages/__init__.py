"""The sandbox's own pages: dashboard, API documentation, guide for language models."""

from sandbox_api.pages.router import router

__all__ = ["router"]
