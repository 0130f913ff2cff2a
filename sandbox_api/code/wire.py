"""Jupyter's messages on ZMQ sockets, without jupyter_client: less to import, and nothing between socket and caller."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox_api.log import logger
from sandbox_api.unicode import loads

DELIMITER = b"<IDS|MSG>"
BATCH = 50
"""Messages that are read before other work gets its turn."""
LARGEST = 64 * 2**20
"""Bytes of one message. ZMQ drops the connection at a larger one, before it takes memory."""


@dataclass(slots=True)
class Message:
    kind: str
    parent: str
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """Empty if the sender does not keep to the protocol: code in the kernel can send anything."""
        try:
            value = loads(self.body, None)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class Codec:
    """Packs and unpacks messages. They are not signed: their sockets lie in a folder that only we can enter."""

    def __init__(self) -> None:
        self._session = uuid.uuid4().hex

    def pack(self, kind: str, content: dict[str, Any]) -> tuple[str, list[bytes]]:
        """The message's id and its frames."""
        identity = uuid.uuid4().hex
        header = {
            "msg_id": identity,
            "session": self._session,
            "username": "sandbox",
            "date": datetime.now(UTC).isoformat(),
            "msg_type": kind,
            "version": "5.3",
        }
        parts = [json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode()]
        return identity, [DELIMITER, b"", *parts]

    def unpack(self, frames: list[bytes]) -> Message | None:
        """The message, or None for frames that are none."""
        try:
            start = frames.index(DELIMITER) + 1
            _, header, parent, _, body = frames[start : start + 5]
            kind, answered = loads(header)["msg_type"], loads(parent).get("msg_id", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return Message(kind, answered, body) if isinstance(kind, str) and isinstance(answered, str) else None


class Channel:
    """A ZMQ socket on the event loop, by its descriptor: no futures and no polling in between."""

    def __init__(self, socket: Any, receive: Callable[[list[bytes]], None]) -> None:
        import zmq

        self._again = zmq.Again
        self._no_wait = zmq.DONTWAIT
        self._socket = socket
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._descriptor: int = socket.getsockopt(zmq.FD)
        self._closed = False
        self._loop.add_reader(self._descriptor, self._drain)
        self._loop.call_soon(self._drain)

    def send(self, frames: list[bytes]) -> None:
        self._socket.send_multipart(frames, self._no_wait)
        # The descriptor tells changes only, and sending may have swallowed one.
        self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        for _ in range(BATCH):
            if self._closed:
                return
            try:
                frames = self._socket.recv_multipart(self._no_wait)
            except self._again:
                return
            try:
                self._receive(frames)
            except Exception:  # a malformed message must not block the ones behind it
                logger.exception("kernel message")
        self._loop.call_soon(self._drain)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._descriptor)
        self._socket.close(linger=0)
