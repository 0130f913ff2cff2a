"""What this sandbox is, what works in it now, what it uses, and what it runs when it ends."""

from sandbox_api.system.router import router

__all__ = ["router"]
