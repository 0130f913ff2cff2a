"""Service."""

from __future__ import annotations

from sandbox_api.health import Health
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings


class CodeService:
    def __init__(self, settings: Settings, paths: Confinement) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def health(self) -> Health:
        return Health(status="unavailable", detail="not built")
