"""Files: reading, writing, searching, editing, transfer and watching, all confined to the reachable folders."""

from sandbox_api.file.router import router

__all__ = ["router"]
