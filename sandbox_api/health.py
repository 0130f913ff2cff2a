"""How a capability is, live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field

from sandbox_api.log import logger

HEALTH_S = 0.8
"""A part that has not answered by then has failed."""


class Health(BaseModel):
    """`unavailable`: not on this host, and `detail` says why. `failed`: it should be there, and is not."""

    status: Literal["ready", "starting", "unavailable", "failed"]
    detail: str = ""
    version: str | None = None
    address: str | None = Field(None, description="Path under this entry where people or clients reach it.")


@runtime_checkable
class Service(Protocol):
    """One capability. `start` returns quickly (slow warm-up goes on in a task); `stop` ends all that it started."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def health(self) -> Health: ...


class Capabilities:
    """The probes of all parts, by name, in the order in which they are listed."""

    def __init__(self) -> None:
        self.probes: dict[str, Callable[[], Awaitable[Health]]] = {}

    async def health(self) -> dict[str, Health]:
        """How every part is, asked at the same time. One that hangs or raises counts as failed."""
        tasks = {name: asyncio.ensure_future(probe()) for name, probe in self.probes.items()}
        await asyncio.wait(tasks.values(), timeout=HEALTH_S)
        return {name: self._outcome(name, task) for name, task in tasks.items()}

    @staticmethod
    def _outcome(name: str, task: asyncio.Future[Health]) -> Health:
        if not task.done():
            # Not awaited: what does not answer may not let itself be cancelled either.
            task.cancel()
            return Health(status="failed", detail=f"no answer within {HEALTH_S} s")
        if error := task.exception():
            logger.warning("health", part=name, problem=repr(error))
            return Health(status="failed", detail=f"{type(error).__name__}: {error}")
        return task.result()
