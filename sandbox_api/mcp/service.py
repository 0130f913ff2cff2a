"""Service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox_api.services import Services

from sandbox_api.health import Health


class McpService:
    def __init__(self, services: Services) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def health(self) -> Health:
        return Health(status="unavailable", detail="not built")
