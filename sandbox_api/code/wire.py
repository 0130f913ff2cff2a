"""Jupyter's messages on ZMQ sockets, without jupyter_client: less to import, and nothing between socket and caller."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
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
POLL_S = 0.003
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
    """Packs and unpacks messages. An empty key means that they are not signed."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._session = uuid.uuid4().hex

    def _signature(self, parts: list[bytes]) -> bytes:
        if not self._key:
            return b""
        signer = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            signer.update(part)
        return signer.hexdigest().encode()

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
        return identity, [DELIMITER, self._signature(parts), *parts]

    def unpack(self, frames: list[bytes]) -> Message | None:
        """The message, or None for frames that are none or not signed by the kernel."""
        try:
            start = frames.index(DELIMITER) + 1
            signature, header, parent, metadata, body = frames[start : start + 5]
            if self._key and not hmac.compare_digest(signature, self._signature([header, parent, metadata, body])):
                return None
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
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        try:
            self._loop.add_reader(self._descriptor, self._drain)
            self._watched = True
        except NotImplementedError:  # Windows' own loop cannot watch sockets
            self._watched = False
            self._tick()
        self._loop.call_soon(self._drain)

    def _tick(self) -> None:
        self._drain()
        if not self._closed:
            self._timer = self._loop.call_later(POLL_S, self._tick)

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
        if self._watched:
            self._loop.remove_reader(self._descriptor)
        if self._timer:
            self._timer.cancel()
        self._socket.close(linger=0)
