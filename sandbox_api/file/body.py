"""The body of an upload, from the connection to the file in a worker thread.

ASGI would hand it over in small pieces, each of them copied several times in the event loop.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from anyio import to_thread
from starlette.requests import ClientDisconnect

from sandbox_api.protocol import Protocol

BLOCK = 2**20
BURST = 16 * BLOCK
"""Bytes after which the event loop gets a say: the request may have been cancelled."""
PATIENCE_MS = 20
"""How long a worker thread waits for more before it is free for others."""

Write = Callable[[bytes | memoryview], None]


class Body:
    """What has not been received yet of a body of a known length."""

    def __init__(self, protocol: Protocol, length: int) -> None:
        self._protocol = protocol
        self._left = length

    async def save(self, write: Write) -> None:
        """Write all of it.

        Raises:
            ClientDisconnect: the client has gone.
            Whatever `write` raises. What the client still sends is thrown away then.
        """
        if self._protocol.transport.is_closing():
            raise ClientDisconnect
        received, self._left = self._protocol.take_body(self._left)
        try:
            await _to_its_end(to_thread.run_sync(write, received))
            with socket.socket(fileno=os.dup(self._protocol.fileno())) as connection:
                connection.setblocking(False)
                while self._left:
                    await _readable(connection)
                    await _to_its_end(to_thread.run_sync(self._receive, connection, write))
        finally:
            self._protocol.return_body(self._left)

    def _receive(self, connection: socket.socket, write: Write) -> None:
        buffer = memoryview(bytearray(min(BLOCK, self._left)))
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        least = max(0, self._left - BURST)
        while self._left > least and poll.poll(PATIENCE_MS):
            filled = 0
            wanted = buffer[: self._left]
            while filled < len(wanted):
                try:
                    count = connection.recv_into(wanted[filled:])
                except BlockingIOError:
                    break
                except ConnectionError as error:
                    raise ClientDisconnect from error
                if not count:
                    raise ClientDisconnect
                filled += count
                self._left -= count
            write(wanted[:filled])


async def _readable(connection: socket.socket) -> None:
    """Wait until there is something to receive, or the connection has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for a thread, even when cancelled: what it uses must not be closed meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait({task})
