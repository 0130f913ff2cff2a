"""The service's routes: OpenAI's for embeddings and transcripts, and those by which Open WebUI reads documents."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import uvicorn
from fastapi import APIRouter, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse

from aisandbox.auxiliary import embedding, refusals, transcript, transcription
from aisandbox.auxiliary.documents import Documents
from aisandbox.auxiliary.embeddings import EmbeddingRequest, Embeddings
from aisandbox.auxiliary.errors import RequestError
from aisandbox.auxiliary.models import EMBEDDING, SPEECH
from aisandbox.auxiliary.worker import IDLE_S, Worker, end_all

LARGEST_DOCUMENT = 512 * 2**20


@dataclass(frozen=True)
class Settings:
    """What the service is told.

    Args:
        models: folder with the models.
        embedding, speech: names of the models in the API.
        upstream: base URL of the chat's model server.
        idle_s: after so many seconds that nobody asks, the process with a model ends.
    """

    models: Path
    embedding: str
    speech: str
    upstream: str
    documents: Documents
    idle_s: float = IDLE_S


def serve(settings: Settings, port: int) -> None:
    """Serve on loopback until SIGTERM comes."""
    # uvicorn raises the signal again when it is done: then what Python does at its end is to be done, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(make_app(settings), host="127.0.0.1", port=port, log_level="warning", access_log=False)


def make_app(settings: Settings) -> FastAPI:
    """The service."""
    embedder = Worker(embedding.load, settings.models / EMBEDDING, settings.idle_s)
    listener = Worker(transcription.load, settings.models / SPEECH, settings.idle_s)
    embeddings = Embeddings(embedder, settings.embedding, settings.upstream)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        end_all()
        await embeddings.close()

    app = FastAPI(title="Auxiliary models", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    refusals.install(app)
    app.include_router(_api(embeddings, listener, settings.speech))
    app.include_router(_documents(settings.documents, embeddings))
    return app


def _api(embeddings: Embeddings, listener: Worker, speech: str) -> APIRouter:
    """What the gateway passes on from the API port."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ready"}

    @router.post("/v1/embeddings")
    async def embed(request: Request) -> Response:
        answer = await embeddings.answer(await request.body(), request.headers.get("content-type", ""))
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    @router.post("/v1/audio/transcriptions")
    async def transcribe(
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()],
        response_format: Annotated[Literal["json", "text", "srt", "verbose_json", "vtt"], Form()] = "json",
        language: Annotated[str, Form()] = "en",
        prompt: Annotated[str, Form()] = "",
        temperature: Annotated[float | None, Form(ge=0, le=1)] = None,
        stream: Annotated[bool, Form()] = False,
        granularities: Annotated[list[str], Form(alias="timestamp_granularities[]")] = [],  # noqa: B006
    ) -> Response:
        if model != speech:
            raise RequestError(
                f"No such model here. {speech} writes down what is said.",
                status=404, code="model_not_found", param="model",
            )  # fmt: skip
        if language.lower() not in ("", "en", "english"):
            raise RequestError(f"{speech} understands English only.", param="language")
        if stream:
            raise RequestError("Transcripts come as a whole: leave `stream` out.", param="stream")
        if "word" in granularities:
            raise RequestError("Times are known of segments, not of words.", param="timestamp_granularities")
        with tempfile.NamedTemporaryFile(prefix="recording-") as kept:
            while block := await file.read(2**20):
                await asyncio.to_thread(kept.write, block)
            kept.flush()
            heard = await listener.ask(
                transcription.transcribe, Path(kept.name), prompt=prompt, temperature=temperature
            )
        if heard.problem:
            raise RequestError(heard.problem, param="file")
        written = transcript.write(heard, response_format)
        return PlainTextResponse(written) if isinstance(written, str) else JSONResponse(written)

    return router


def _documents(documents: Documents, embeddings: Embeddings) -> APIRouter:
    """Open WebUI's doors. It shows visitors the very text of a refusal."""
    router = APIRouter(prefix="/documents")

    @router.put("/process")
    async def process(request: Request) -> Response:
        with tempfile.NamedTemporaryFile(prefix="document-") as kept:
            size = 0
            async for block in request.stream():
                size += len(block)
                if size > LARGEST_DOCUMENT:
                    return PlainTextResponse("The document is larger than 512 MiB. Send it in parts.", 413)
                await asyncio.to_thread(kept.write, block)
            kept.flush()
            try:
                parts = await documents.parts(Path(kept.name), unquote(request.headers.get("x-filename", "")))
            except RequestError as refusal:
                return PlainTextResponse(str(refusal), 422)
        return JSONResponse(parts)

    @router.post("/v1/embeddings")
    async def embed(asked: EmbeddingRequest) -> dict[str, Any]:
        """Parts of documents are cut by characters: one that has more tokens than fit is found by its beginning."""
        return await embeddings.embed(asked, shorten=True)

    return router
