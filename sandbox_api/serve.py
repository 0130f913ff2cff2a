"""Runs the application under uvicorn."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import sys

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http import httptools_impl

from sandbox_api import environment, log
from sandbox_api.access.tokens import ConfigurationError
from sandbox_api.app import create_app
from sandbox_api.protocol import Protocol
from sandbox_api.settings import Settings

LARGEST_WEBSOCKET_MESSAGE = 256 * 2**20
"""Bytes; a full-page screenshot over DevTools is tens of megabytes."""

# Bytes of a body that may wait for the application. uvicorn's own 64 KiB has it stop and go on a thousand times in an
# upload of 64 MiB, which slows it measurably.
httptools_impl.HIGH_WATER_LIMIT = 2**20  # type: ignore[attr-defined]

PATIENCE_S = 3
"""For requests in flight when the server is asked to stop; open streams are cut after it."""


def _fail(message: str, status: int) -> int:
    print(f"sandbox-api: {message}", file=sys.stderr)
    return status


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family)


def serve(settings: Settings) -> int:
    """Serve until a signal ends it.

    Returns:
        2: the settings make no sense, 1: the place or the port cannot be had; a message on standard error says why.
    """
    log.configure(settings.log_level)
    if settings.beyond_loopback and not (settings.auth or settings.in_container or settings.allow_unauthenticated):
        return _fail(
            f"refusing to listen on {settings.host} without authentication: anyone who reaches it could "
            "run commands here.\n"
            "  fix: SANDBOX_AUTH=1 with SANDBOX_API_KEYS=KEY, or SANDBOX_HOST=127.0.0.1;\n"
            "       SANDBOX_ALLOW_UNAUTHENTICATED=1 if something else guards it",
            2,
        )
    try:
        application = create_app(settings)
    except ConfigurationError as error:
        return _fail(str(error), 2)
    gc.freeze()
    gc.enable()
    try:
        environment.prepare(settings)
        listener = _listen(settings)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _fail(f"port {settings.port} of {settings.host} is in use; choose another with SANDBOX_PORT", 1)
        return _fail(f"cannot start: {error}", 1)
    host, port = listener.getsockname()[:2]
    log.logger.info("listening", host=host, port=port)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await application(scope, receive, send)
        except asyncio.CancelledError:
            # What is still open is cut when the server stops: no crash, so nothing for the log.
            if not server.should_exit:
                raise

    config = uvicorn.Config(
        answer,
        http=Protocol,
        log_config=None,
        log_level="warning",  # at info it writes the queries of websockets, which may carry tickets
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application decides whom it believes
        ws="websockets-sansio",
        ws_max_size=LARGEST_WEBSOCKET_MESSAGE,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=PATIENCE_S,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0
