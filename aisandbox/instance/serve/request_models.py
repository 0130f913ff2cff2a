"""A middleware of vLLM: answers for one of its models, `GET /v1/models/NAME`, which it only lists. Stdlib only."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LIST = "/v1/models"


class OneModel:
    """The middleware, by its name on vLLM's command line."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(f"{LIST}/"):
            await self.app(scope, receive, send)
            return
        name = scope["path"].removeprefix(f"{LIST}/")
        said: list[Message] = []

        async def keep(message: Message) -> None:
            said.append(message)

        await self.app({**scope, "path": LIST, "raw_path": LIST.encode()}, receive, keep)
        status, answer = said[0]["status"], b"".join(part.get("body", b"") for part in said[1:])
        if status == 200:
            status, answer = _one(json.loads(answer)["data"], name)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _one(models: list[dict[str, Any]], name: str) -> tuple[int, bytes]:
    found = next((model for model in models if model["id"] == name), None)
    if found:
        return 200, json.dumps(found).encode()
    served = " and ".join(f"`{model['id']}`" for model in models)
    message = f"The model `{name}` does not exist; served is {served}."
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    return 404, json.dumps({"error": error}).encode()
