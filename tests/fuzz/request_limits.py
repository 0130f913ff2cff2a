"""The engine's limits of requests: what costs too much is refused, however it is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from aisandbox.instance.serve import request_limits
from aisandbox.instance.serve.request_limits import (
    MAX_DEPTH,
    MAX_SEQUENCES,
    MAX_TOP_LOGPROBS,
    RequestLimits,
    TooMuch,
    check,
)
from tests.fuzz.search import Property

MOST = 2000
WORDS = [
    "prompt", "messages", "input", "content", "role", "n", "best_of", "logprobs", "top_logprobs", "prompt_logprobs",
    "stop", "tools", "url", "data", "image_url", "structured_outputs", "regex", "json", "choice", "logit_bias",
    "response_format", "arguments", "x" * 1500,
]  # fmt: skip
SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS)
    | st.sampled_from(["1000", " 65 ", "6_5", "65.0", "1e3", 65.0, 1e3, -1, 10**30])
)  # fmt: skip
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=20,
)
DEEP = st.tuples(st.sampled_from(WORDS), st.integers(1, 2000)).map(
    lambda shape: f'{{"{shape[0]}": ' + "[" * shape[1] + "]" * shape[1] + "}"
)
INTEGER = TypeAdapter(int)


def _as_the_engine_reads(value: object) -> int:
    """A number as vLLM's models take it: texts and whole floats, too."""
    try:
        return INTEGER.validate_python(value)
    except ValidationError:
        return 0


def _texts(value: Any, said: bool = False) -> Iterator[str]:
    """Every text that a tokenizer could meet: pictures and sound of a conversation are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if not (said and key in request_limits.MEDIA_KEYS and isinstance(inner, str)):
                yield from _texts(inner, said)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, said)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def what_passes_is_cheap(request: dict[str, Any]) -> None:
    try:
        check(json.dumps(request).encode(), MOST)
    except TooMuch:
        return
    prompt = request.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    wanted = max(_as_the_engine_reads(request.get(key)) for key in ("n", "best_of")) or 1
    assert prompts * wanted <= MAX_SEQUENCES
    for key in ("logprobs", "top_logprobs", "prompt_logprobs"):
        assert _as_the_engine_reads(request.get(key)) <= MAX_TOP_LOGPROBS, key
    texts = (text for key, value in request.items() for text in _texts(value, key in request_limits.CONVERSATION))
    assert sum(map(len, texts)) <= MOST
    assert _depth(request) <= MAX_DEPTH + 1


def answers_have_one_shape(body: bytes) -> None:
    """Refused in the API's shape, or handed on as it came."""
    reached: list[bytes] = []
    sent: list[Any] = []

    async def engine(scope: Any, receive: Any, send: Any) -> None:
        reached.append((await receive())["body"])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    config = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=4096), scheduler_config=SimpleNamespace(max_num_seqs=16)
    )
    app = SimpleNamespace(state=SimpleNamespace(vllm_config=config))
    scope = {"type": "http", "method": "POST", "app": app, "headers": []}
    asyncio.run(RequestLimits(engine)(scope, receive, send))
    if reached:
        assert reached == [body] and not sent
        return
    start, content = sent
    error = json.loads(content["body"])["error"]
    assert start["status"] == 400 and set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["code"] and error["type"] == "invalid_request_error"


ANY_BODY = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()) | DEEP.map(str.encode)
PROPERTIES = (
    Property(what_passes_is_cheap, {"request": st.dictionaries(st.sampled_from(WORDS), JSON, max_size=6)}),
    Property(answers_have_one_shape, {"body": ANY_BODY}),
)
