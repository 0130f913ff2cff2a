"""Takes a request without a body for one with `{}`."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox_api.body_limit import is_streamed

METHODS = {"POST", "PUT", "PATCH", "DELETE"}
JSON = "application/json"


class MissingBody:
    """Clients leave out a body in which nothing is chosen. Where a field is required, the answer names it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") not in METHODS or is_streamed(scope["path"]) or not _lacks_json(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        scope = {**scope, "headers": list(scope["headers"])}
        MutableHeaders(scope=scope)["content-type"] = JSON
        given = False

        async def receive_empty_object() -> Message:
            nonlocal given
            message = await receive()
            if given or message["type"] != "http.request":
                return message
            given = True
            return {**message, "body": b"{}"}

        await self.app(scope, receive_empty_object, send)


def _lacks_json(headers: Headers) -> bool:
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return not has_body and headers.get("content-type", JSON).partition(";")[0].strip().lower() == JSON
