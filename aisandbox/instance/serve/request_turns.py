"""Shares the engine among clients: no one's requests take all of its seats, or memory without bound. Stdlib only.

What one client has under way beyond its share waits here, in the order in which it came, and not in the engine, where
others would have to wait behind it. The gateway bounds how many requests of one address are open at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

MAX_BYTES = 256 << 20
"""Bodies of one client's open requests together."""


class Busy(Exception):
    """The client's open requests take more memory than they may."""


class Gone(Exception):
    """The client has left before its request was answered."""


@dataclass
class Client:
    """What one client has open. `seats`: answers that are being made. `waiting`: what the others ask for."""

    requests: int = 0
    bytes: int = 0
    seats: int = 0
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)

    def take(self, size: int) -> None:
        """Count so much more of a body.

        Raises:
            Busy: that is too much. The request is to be given up.
        """
        self.bytes += size
        if self.bytes > MAX_BYTES:
            raise Busy

    @asynccontextmanager
    async def turn(self, seats: int, most: int, gone: asyncio.Future[Any]) -> AsyncIterator[None]:
        """Wait until so many seats are free of the client's share. A request that needs more than all gets all.

        Args:
            gone: done when the client has left.

        Raises:
            Gone: it has left while it waited.
        """
        seats = min(seats, most)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((seats, place))
        self._call(most)
        try:
            if not place.done():
                await asyncio.wait({place, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not place.done():
                raise Gone
            yield
        finally:
            if place.done():
                self.seats -= seats
            place.cancel()
            self._call(most)

    def _call(self, most: int) -> None:
        """Give free seats to those who wait, in their order."""
        while self.waiting:
            wanted, place = self.waiting[0]
            if not place.cancelled():
                if self.seats + wanted > most:
                    return
                self.seats += wanted
                place.set_result(None)
            self.waiting.popleft()


class Turns:
    """All clients that have a request open."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}

    @contextmanager
    def request(self, name: str) -> Iterator[Client]:
        """The client, during one request of it; what the request took is given back."""
        client = self._clients.setdefault(name, Client())
        client.requests += 1
        try:
            yield client
        finally:
            client.requests -= 1
            if not client.requests:
                del self._clients[name]
