"""Gives every request a trace id, logs it, and answers crashes in the one form."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox_api.envelope import failed
from sandbox_api.errors import SandboxError
from sandbox_api.log import logger
from sandbox_api.quotas import reached
from sandbox_api.unicode import dump_model

HEADER = "x-trace-id"
# A caller may bring its own, so that its log and ours can be joined.
ACCEPTED = re.compile(rb"[A-Za-z0-9_-]{8,64}")


def trace_id(scope: Scope) -> str:
    """The id of the request that is being answered."""
    value: str = scope["state"]["trace_id"]
    return value


def error_response(error: SandboxError, trace: str, status: int | None = None) -> Response:
    return Response(dump_model(failed(error, trace)), status or error.status, media_type="application/json")


class Trace:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        brought = next((value for name, value in scope["headers"] if name == HEADER.encode()), b"")
        trace = brought.decode() if ACCEPTED.fullmatch(brought) else secrets.token_hex(8)
        scope.setdefault("state", {})["trace_id"] = trace
        structlog.contextvars.bind_contextvars(trace_id=trace)
        start, status = time.perf_counter(), 0

        async def send_with_trace(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                status = message.get("status", 101)
                MutableHeaders(scope=message)[HEADER] = trace
            await send(message)

        try:
            await self.app(scope, receive, send_with_trace)
        except Exception as crash:
            # The path only: queries carry tickets, bodies carry the user's data.
            logger.exception("crash", path=scope["path"])
            if scope["type"] == "http" and not status:
                error = reached(crash) or SandboxError("internal_error", "the sandbox failed on this request")
                await error_response(error, trace)(scope, receive, send_with_trace)
            elif scope["type"] == "websocket":
                await send_with_trace({"type": "websocket.close", "code": 1011})
            else:
                raise
        finally:
            logger.info(
                "request",
                kind=scope["type"],
                method=scope.get("method", "WS"),
                path=scope["path"],
                status=status,
                seconds=round(time.perf_counter() - start, 4),
            )
            structlog.contextvars.clear_contextvars()
