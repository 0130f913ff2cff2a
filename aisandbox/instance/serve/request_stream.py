"""Keeps a streamed answer's connection alive while the engine has nothing to say yet. Stdlib only.

Load balancers cut connections that are silent for a minute, and a request may wait longer: for its turn, or for a long
prompt to be read. A comment, which every client of server-sent events skips, is sent meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

INTERVAL_S = 10.0
COMMENT = b": still here\n\n"
EVENTS = b"text/event-stream"


class KeptAlive:
    """`send` of one request whose answer is to be a stream.

    Where the server behind has not begun to answer in time, the answer begins here; a refusal that follows becomes an
    event, since its status can no longer be told.
    """

    def __init__(self, send: Send, named: bool) -> None:
        """`named`: whether the API's events have names, as those of /v1/messages and /v1/responses do."""
        self._send, self._named = send, named
        self._last = asyncio.get_running_loop().time()
        self._sending = self._begun = self._begun_here = False
        self._streams, self._between_events = True, True
        self._refusal: bytes | None = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass on what the server behind sends."""
        if message["type"] == "http.response.start":
            self._streams = any(name == b"content-type" and EVENTS in value for name, value in message["headers"])
            if self._begun_here:
                self._refusal = None if self._streams else b""
                return
            self._begun = True
        elif message["type"] == "http.response.body":
            body, ends = message.get("body", b""), not message.get("more_body", False)
            if self._refusal is not None:
                self._refusal += body
                if not ends:
                    return
                message = {**message, "body": self._event(self._refusal)}
            self._between_events = not ends and (body.endswith(b"\n\n") if body else self._between_events)
        self._sending = True
        try:
            await self._send(message)
        finally:
            self._sending = False
            self._last = asyncio.get_running_loop().time()

    async def keep(self) -> None:
        """Send comments, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._last + INTERVAL_S - clock())
            if clock() < self._last + INTERVAL_S:
                continue
            self._last = clock()
            if self._sending or not self._streams or not self._between_events:
                continue
            if not self._begun:
                self._begun = self._begun_here = True
                headers = [(b"content-type", EVENTS + b"; charset=utf-8"), (b"cache-control", b"no-cache")]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})

    def _event(self, refusal: bytes) -> bytes:
        event = b"data: " + refusal.replace(b"\n", b" ") + b"\n\n"
        return b"event: error\n" + event if self._named else event + b"data: [DONE]\n\n"


@asynccontextmanager
async def kept_alive(send: Send, stream: bool, named: bool) -> AsyncIterator[Send]:
    """What a request's answer is to be sent by, if a `stream` was asked for."""
    if not stream:
        yield send
        return
    answer = KeptAlive(send, named)
    keeping = asyncio.ensure_future(answer.keep())
    try:
        yield answer.send
    finally:
        keeping.cancel()
