"""Who may call: hosts, origins, tokens, tickets."""

from sandbox_api.access.guard import Guard
from sandbox_api.access.router import router

__all__ = ["Guard", "router"]
