"""Embeddings in the form of OpenAI's API, by the model here or by the chat's model server."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, Literal

import httpx
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError, field_validator

from aisandbox.auxiliary import embedding
from aisandbox.auxiliary.errors import RequestError
from aisandbox.auxiliary.worker import Worker

DIMENSIONS = 384
MOST_INPUTS = 2048
"""As OpenAI takes."""
TURN = 64
"""Texts that are embedded in one go, before others have their turn."""
FORWARD_S = 600.0


class EmbeddingRequest(BaseModel):
    """OpenAI's, as far as the model can follow it."""

    model: str
    input: list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"one text, or a list of 1 to {MOST_INPUTS} texts. Tokens are not taken")
        if len(texts) > MOST_INPUTS:
            raise RequestError(
                f"The request has {len(texts)} inputs; at most {MOST_INPUTS}. Send them in several requests.",
                code="array_above_max_length", param="input",
            )  # fmt: skip
        return texts


class Embeddings:
    """Makes embeddings.

    Args:
        name: of the embedding model, in the API.
        upstream: base URL of the chat's model server, which may have embeddings of its own.
    """

    def __init__(self, worker: Worker, name: str, upstream: str) -> None:
        self._worker, self._name = worker, name
        self._upstream = httpx.AsyncClient(base_url=upstream, timeout=httpx.Timeout(FORWARD_S, connect=5))

    async def close(self) -> None:
        await self._upstream.aclose()

    async def answer(self, body: bytes, content_type: str) -> Response | dict[str, Any]:
        """What comes of a request for any model.

        Raises:
            RequestValidationError, RequestError: it cannot be answered.
            WorkerError: the process with the model ended.
        """
        if _model(body) != self._name:
            return await self._forward(body, content_type)
        try:
            asked = EmbeddingRequest.model_validate_json(body)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error
        return await self.embed(asked, shorten=False)

    async def embed(self, asked: EmbeddingRequest, *, shorten: bool) -> dict[str, Any]:
        """What comes of a request for the model here.

        Args:
            shorten: otherwise a text that is too long is refused.
        """
        if asked.dimensions not in (None, DIMENSIONS):
            raise RequestError(
                f"{self._name} makes vectors of {DIMENSIONS} numbers, and no others.", param="dimensions"
            )
        if "" in asked.input:
            raise RequestError(f"Input {asked.input.index('') + 1} is empty.", param="input")
        vectors: list[bytes] = []
        tokens = 0
        for start in range(0, len(asked.input), TURN):
            found = await self._worker.ask(embedding.embed, asked.input[start : start + TURN], shorten=shorten)
            if not found.vectors:
                place = next(i for i, count in enumerate(found.tokens) if count > embedding.LONGEST)
                raise RequestError(
                    f"Input {start + place + 1} has {found.tokens[place]} tokens; {self._name} reads at most "
                    f"{embedding.LONGEST}. Send it in parts.",
                    code="context_length_exceeded", param="input",
                )  # fmt: skip
            vectors += found.vectors
            tokens += sum(found.tokens)
        written = _packed if asked.encoding_format == "base64" else _numbers
        data = [
            {"object": "embedding", "index": index, "embedding": written(vector)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self._name, "usage": usage}

    async def _forward(self, body: bytes, content_type: str) -> Response:
        try:
            answer = await self._upstream.post("/v1/embeddings", content=body, headers={"Content-Type": content_type})
        except httpx.TransportError as error:
            raise RequestError(
                f"The model server is not ready yet. {self._name}, which makes embeddings at any time, is.",
                status=503, code="model_loading", param="model",
            ) from error  # fmt: skip
        if answer.status_code == 404:
            raise RequestError(
                f"No such model here, or the model makes no embeddings. {self._name} does; /v1/models lists what else "
                "is served.",
                status=404, code="model_not_found", param="model",
            )  # fmt: skip
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


def _model(body: bytes) -> Any:
    """The model that a request names; None where it is not to be found: the model server says what is wrong then."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return asked.get("model") if isinstance(asked, dict) else None


def _packed(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _numbers(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{DIMENSIONS}f", vector))
