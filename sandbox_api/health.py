"""How a capability is, live."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field


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
