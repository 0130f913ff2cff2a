"""Carries RFB between a websocket and the VNC server's unix socket."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from pathlib import Path

from starlette.types import Receive, Scope, Send

from sandbox_api import forward
from sandbox_api.desktop import rfb

PATIENCE_S = 20.0
"""A viewer that comes back while the display restarts waits this long; noVNC itself tries only once."""
POLL_S = 0.1
READ_BYTES = 256 * 1024
TRY_AGAIN_LATER = 1013
POLICY = 1008
GONE = 1001


async def _connected(path: Path) -> tuple[StreamReader, StreamWriter]:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        try:
            return await rfb.connect(path)
        except OSError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(POLL_S)


async def bridge(scope: Scope, receive: Receive, send: Send, path: Path, *, view_only: bool) -> None:
    """Until either side ends. Neither is read faster than the other takes it.

    Args:
        view_only: drop what the viewer does; it sees only.
    """
    await receive()
    protocol = "binary" if "binary" in scope.get("subprotocols", ()) else None
    await send({"type": "websocket.accept", "subprotocol": protocol, "headers": []})
    # A viewer says nothing before the server has greeted, so the next word of an impatient one is its good-bye.
    leaving = asyncio.ensure_future(receive())
    connecting = asyncio.create_task(_connected(path))
    await asyncio.wait((leaving, connecting), return_when=asyncio.FIRST_COMPLETED)
    if not connecting.done():
        connecting.cancel()
        return
    try:
        reader, writer = connecting.result()
    except OSError:
        leaving.cancel()
        reason = "the VNC server does not answer; GET /v1/sandbox says why"
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": reason})
        return
    passed = rfb.ViewOnly() if view_only else bytes

    async def to_server() -> None:
        message = await leaving
        while message["type"] == "websocket.receive":
            data = message.get("bytes")
            if data is None:
                await send({"type": "websocket.close", "code": POLICY, "reason": "send binary messages"})
                return
            try:
                writer.write(passed(data))
            except rfb.ProtocolError as error:
                await send({"type": "websocket.close", "code": POLICY, "reason": f"view only: {error}"})
                return
            await writer.drain()
            message = await receive()

    async def to_viewer() -> None:
        while data := await reader.read(READ_BYTES):
            await send({"type": "websocket.send", "bytes": data})
        await send({"type": "websocket.close", "code": GONE, "reason": "the VNC server has ended; connect again"})

    try:
        await forward.both(to_server(), to_viewer())
    finally:
        leaving.cancel()
        writer.close()
