"""The CUDA flavour's chat without a GPU: its vLLM computes on GPUs only, so Transformers serves a small model.

    python -m aisandbox.instance.serve.engine_processor --model FOLDER --port PORT --served-model-name NAME...

It answers as much of OpenAI's API as a chat needs, one request at a time: models, and chat completions with tools.
Only functions import what is heavy.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aisandbox.instance.serve.request_limits import RequestLimits
from aisandbox.instance.serve.request_models import OneModel

TOOL_CALLS = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"\s*(?:<\|im_end\|>|<\|endoftext\|>)", "content": "text"},
    },
}
"""How the embedded model writes calls of tools (Hermes), as Transformers wants it told."""


def make_app(folder: str, names: list[str]) -> Starlette:
    """Load the model, and make the server that answers for it under these names."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Few processors are fast with the bfloat16 of the weights.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    context = int(model.config.max_position_embeddings)
    tokenizer.response_template = TOOL_CALLS
    _limit_prompts(tokenizer, context)
    chat = _handler(model, tokenizer, names[0], context)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ready"})

    async def models(_: Request) -> Response:
        found = [
            {"id": name, "object": "model", "owned_by": "transformers", "max_model_len": context} for name in names
        ]
        return JSONResponse({"object": "list", "data": found})

    async def complete(request: Request) -> Response:
        body = await _body(request, names)
        try:
            answer: Response = await chat.handle_request(body, os.urandom(8).hex())
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - what the library stumbles over is a fault of the request
            raise HTTPException(400, f"The request cannot be answered: {error}") from None
        if isinstance(answer, StreamingResponse):
            answer.body_iterator = _ended(answer.body_iterator)
        return answer

    routes = [
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/{path:path}", _absent, methods=["GET", "POST", "DELETE"]),
    ]
    middleware = [Middleware(RequestLimits), Middleware(OneModel)]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _refusal})
    # What the limits ask of vLLM.
    app.state.vllm_config = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=context), scheduler_config=SimpleNamespace(max_num_seqs=1)
    )
    return app


def _handler(model: Any, tokenizer: Any, name: str, context: int) -> Any:
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.serving.utils import GenerationState

    class Handler(ChatCompletionHandler):  # type: ignore[misc]  # the library's classes have no types here
        """Transformers' own, for the one model. Fields that it does not know are ignored."""

        def _validate_request(self, body: dict[str, Any]) -> None:
            known = self._valid_params_class.__mutable_keys__
            for field in [field for field in body if field not in known]:
                del body[field]

        def _resolve_model(self, _body: dict[str, Any]) -> tuple[str, Any, Any]:
            return name, model, tokenizer

        def _build_generation_config(self, body: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            if body.get("max_tokens") is None:
                body["max_tokens"] = body.get("max_completion_tokens") or context
            body["max_tokens"] = min(int(body["max_tokens"]), context)
            return super()._build_generation_config(body, *arguments, **options)

    # The manager loads nothing: it would need a library that vLLM's environment does not have.
    return Handler(model_manager=ModelManager(device="cpu"), generation_state=GenerationState())


def _limit_prompts(tokenizer: Any, context: int) -> None:
    """Refuse what is longer than the model's context."""
    apply = tokenizer.apply_chat_template

    def limited(*arguments: Any, **options: Any) -> Any:
        inputs = apply(*arguments, **options)
        if (tokens := inputs["input_ids"].shape[-1]) >= context:
            raise HTTPException(400, f"The conversation has {tokens} tokens; at most {context - 1} can be read.")
        return inputs

    tokenizer.apply_chat_template = limited


async def _body(request: Request, names: list[str]) -> dict[str, Any]:
    """The request, with what the handler takes for granted."""
    try:
        body = await request.json()
    except ValueError:
        raise HTTPException(400, "The body is not valid JSON.") from None
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(isinstance(one, dict) and "role" in one for one in messages):
        raise HTTPException(400, "`messages` must be a list of messages, each with its role.")
    if body.get("model") not in names:
        raise HTTPException(404, f"The model `{body.get('model')}` does not exist; served is {names[0]}.")
    return dict(body)


async def _ended(events: Any) -> AsyncIterator[Any]:
    """The stream as OpenAI ends it."""
    async for event in events:
        yield event
    yield "data: [DONE]\n\n"


async def _refusal(_: Request, error: Exception) -> Response:
    """OpenAI's form of an error."""
    assert isinstance(error, HTTPException)
    answer = {"error": {"message": error.detail, "type": "invalid_request_error", "code": error.status_code}}
    return JSONResponse(answer, error.status_code)


async def _absent(request: Request) -> Response:
    raise HTTPException(404, f"Without a GPU only /v1/models and /v1/chat/completions answer, not {request.url.path}.")


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", nargs="+", required=True)
    arguments = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a broken GPU is not even asked
    app = make_app(arguments.model, arguments.served_model_name)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
