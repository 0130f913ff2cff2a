"""Answers HEAD wherever GET is answered, for probes."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORWARDED = {"jupyter", "code-server", "proxy", "absproxy"}
"""First parts of paths behind which other programs answer for themselves."""


class _AnsweredError(Exception):
    """Status and headers are out, so the route has nothing left to do."""


class Head:
    """Lets routes see a GET, and cuts the answer after its headers: no body is made, no stream is begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "HEAD" or scope["path"].removeprefix("/").partition("/")[0] in FORWARDED:
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                await send({"type": "http.response.body", "body": b""})
                raise _AnsweredError

        with suppress(_AnsweredError):
            await self.app({**scope, "method": "GET"}, receive, send_head)
