"""Bounds the bodies of requests before anything reads them into memory."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox_api.errors import SandboxError
from sandbox_api.trace import error_response, trace_id

# These stream what they get, and have limits of their own, or hand it on to something that has.
STREAMED = {"/v1/file/upload", "/v1/file/content", "/terminal-server/files/upload"}
FORWARDED = ("/jupyter", "/code-server", "/proxy", "/absproxy", "/cdp")


class _TooLargeError(Exception):
    pass


class BodyLimit:
    """Answers 413 to larger bodies, announced or not. Args: most: bytes."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] != "http" or is_streamed(path):
            await self.app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > self.most:
            await self._refuse(scope, receive, send)
            return
        received, exceeded, answered = 0, False, False

        async def counted() -> Message:
            nonlocal received, exceeded
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most:
                exceeded = True
                raise _TooLargeError
            return message

        async def send_unless_exceeded(message: Message) -> None:
            nonlocal answered
            # What the application makes of the broken-off body is of no interest.
            if not exceeded or answered:
                answered = True
                await send(message)

        with suppress(_TooLargeError):
            await self.app(scope, counted, send_unless_exceeded)
        if exceeded and not answered:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = SandboxError("too_large", f"the request has more than {self.most} bytes (SANDBOX_BODY_BYTES)")
        await error_response(error, trace_id(scope))(scope, receive, send)


def is_streamed(path: str) -> bool:
    """Whether what lies at the path takes a body of any kind and size."""
    return path in STREAMED or any(path == prefix or path.startswith(prefix + "/") for prefix in FORWARDED)
