"""The routes that agents call most, answered without FastAPI's routing and dependency injection.

They are declared to FastAPI, too. It documents them, and answers every request whose body is not a valid JSON object of
the content type application/json, so that errors are the same on both ways. On the direct one a request costs the
server about half the processor time.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox_api.envelope import Envelope
from sandbox_api.services import Services
from sandbox_api.unicode import dump_model

JSON = "application/json"
PASSED_ON = "sandbox.passed_on"
"""Key in the scope of a request that FastAPI is to answer."""


def answer(envelope: Envelope[Any]) -> Response:
    """The response to a request. FastAPI would validate and copy the envelope first."""
    return Response(dump_model(envelope), media_type=JSON)


@dataclass(frozen=True)
class Direct:
    """The model of a POST route's body, and what answers it."""

    model: type[BaseModel]
    respond: Callable[[Any, Services, Headers], Awaitable[Response]]


class DirectRoutes(BaseRoute):
    """Comes before all other routes.

    Args:
        routes: by path.
        otherwise: answers requests that are not for the direct way.
    """

    def __init__(self, routes: Mapping[str, Direct], services: Services, otherwise: ASGIApp) -> None:
        self._routes = routes
        self._services = services
        self._otherwise = otherwise

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        direct = scope["path"] in self._routes and scope.get("method") == "POST" and PASSED_ON not in scope
        return (Match.FULL if direct else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes[scope["path"]]
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            await self._otherwise({**scope, PASSED_ON: True}, receive, send)
            return
        if request.headers.get("content-type") == JSON and (wanted := _parsed(route.model, body)):
            response = await route.respond(wanted, self._services, request.headers)
            await response(scope, receive, send)
            return
        await self._otherwise({**scope, PASSED_ON: True}, _replayed(body, receive), send)


def _parsed(model: type[BaseModel], body: bytes) -> BaseModel | None:
    try:
        return model.model_validate(json.loads(body))
    except (ValueError, ValidationError, RecursionError):
        return None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives out a body that has been read already, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
