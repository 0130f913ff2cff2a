"""Runs the application under uvicorn."""

from __future__ import annotations

import socket
import sys

import uvicorn

from sandbox_api import environment, log
from sandbox_api.app import create_app
from sandbox_api.settings import Settings

LARGEST_WEBSOCKET_MESSAGE = 256 * 2**20
"""Bytes; a full-page screenshot over DevTools is tens of megabytes."""


def serve(settings: Settings) -> int:
    log.configure(settings.log_level)
    if settings.beyond_loopback and not (settings.auth or settings.in_container or settings.allow_unauthenticated):
        print(
            f"sandbox-api: refusing to listen on {settings.host} without authentication: anybody who reaches it could "
            "run commands here.\n"
            "  fix: SANDBOX_AUTH=1 with SANDBOX_API_KEYS=KEY, or SANDBOX_HOST=127.0.0.1;\n"
            "       SANDBOX_ALLOW_UNAUTHENTICATED=1 if something else guards it",
            file=sys.stderr,
        )
        return 2
    try:
        environment.prepare(settings)
        listener = socket.create_server(
            (settings.host, settings.port), family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        )
    except OSError as error:
        print(f"sandbox-api: cannot start: {error}", file=sys.stderr)
        return 1
    host, port = listener.getsockname()[:2]
    log.logger.info("listening", host=host, port=port)
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application decides whom it believes
        ws="websockets-sansio",
        ws_max_size=LARGEST_WEBSOCKET_MESSAGE,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0
