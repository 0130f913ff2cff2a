"""Requests that would hold up everybody are refused before the engine sees them; what people send is not."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from aisandbox.instance.serve.request_limits import RequestLimits, TooMuch, characters, check

CONTEXT = 4096
MOST = characters(CONTEXT)
SHARE = 9
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def deep(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


@pytest.mark.parametrize(
    ("request_", "parameter", "code"),
    [
        ({"prompt": "a", "n": 65}, "n", "integer_above_max_value"),
        ({"prompt": "a", "n": 16384}, "n", "integer_above_max_value"),
        ({"prompt": "a", "best_of": 1000}, "n", "integer_above_max_value"),
        ({"prompt": ["a"] * 10, "n": 1000}, "n", "integer_above_max_value"),
        ({"prompt": "a", "n": "1000"}, "n", "integer_above_max_value"),
        ({"prompt": "a", "n": 65.0}, "n", "integer_above_max_value"),
        ({"prompt": "a", "n": float("nan"), "best_of": " 6_5 "}, "n", "integer_above_max_value"),
        ({"prompt": ["a"] * 65}, "prompt", "integer_above_max_value"),
        ({"prompt": [[1, 2]] * 9, "n": 8}, "n", "integer_above_max_value"),
        ({"prompt": "word " * MOST, "truncate_prompt_tokens": 5}, None, "context_length_exceeded"),
        ({"prompt": [1] * (MOST + 1)}, None, "context_length_exceeded"),
        ({"prompt": "data:" + "a" * MOST, "truncate_prompt_tokens": 5}, None, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "data:" + "a" * MOST}]}, None, "context_length_exceeded"),
        (HELLO | {"tools": [{"function": {"url": "a" * MOST}}]}, None, "context_length_exceeded"),
        ({"input": "word " * MOST, "truncation": "auto"}, None, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * MOST}]}, None, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": ""}] * MOST}, None, "context_length_exceeded"),
        (HELLO | {"structured_outputs": {"regex": "(.*)*" * 1000}}, "regex", "string_above_max_length"),
        (HELLO | {"structured_outputs": {"grammar": "a" * 70_000}}, "grammar", "string_above_max_length"),
        (HELLO | {"structured_outputs": {"choice": ["a"] * 2000}}, "choice", "array_above_max_length"),
        (HELLO | {"stop": ["a"] * 33}, "stop", "array_above_max_length"),
        (HELLO | {"logit_bias": {str(number): 1 for number in range(2000)}}, "logit_bias", "array_above_max_length"),
        (HELLO | {"tools": [{}] * 257}, "tools", "array_above_max_length"),
        (HELLO | {"top_logprobs": 50_000}, "top_logprobs", "integer_above_max_value"),
        (HELLO | {"prompt_logprobs": 21}, "prompt_logprobs", "integer_above_max_value"),
        ({"model": "m" * 3_000_000, "prompt": "a"}, "model", "string_above_max_length"),
        (HELLO | {"model": "m" * 257}, "model", "string_above_max_length"),
        ({"input": "a", "previous_response_id": "resp_" + "0" * 252}, "previous_response_id",
         "string_above_max_length"),
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        (HELLO | {"request_id": "r" * 300}, "request_id", "string_above_max_length"),
        (HELLO | {"user": "u" * 300}, "user", "string_above_max_length"),
        ({"input": ["a"] * 2049}, "input", "array_above_max_length"),
        ({"input": [[1]] * 2049}, "input", "array_above_max_length"),
        (HELLO | {"logprobs": "50000"}, "logprobs", "integer_above_max_value"),
        (HELLO | {"tools": [{"function": {"parameters": {"properties": {"a" * MOST: {}}}}}]}, None,
         "context_length_exceeded"),
        (HELLO | {"metadata": deep(70)}, None, "invalid_value"),
        (HELLO | {"structured_outputs": {"json": json.dumps(deep(70))}}, None, "invalid_value"),
        (HELLO | {"structured_outputs": {"json": json.dumps({"pattern": "a" * 5000})}}, "pattern",
         "string_above_max_length"),
        ({"messages": [{"tool_calls": [{"function": {"arguments": "[" * 100_000}}]}]}, None, "invalid_value"),
        (HELLO | {"response_format": {"json_schema": {"schema": {"pattern": "a" * 5000}}}}, "pattern",
         "string_above_max_length"),
    ],
)  # fmt: skip
def test_what_costs_too_much_is_refused(request_: dict[str, Any], parameter: str | None, code: str) -> None:
    with pytest.raises(TooMuch) as refusal:
        check(json.dumps(request_).encode(), MOST)
    message, *rest = refusal.value.args
    assert rest == [parameter, code] and message.endswith((".", "read."))


def test_json_too_deep_to_parse_is_refused() -> None:
    with pytest.raises(TooMuch, match="nested"):
        check(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", MOST)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"[1]",
        b'"text"',
        json.dumps(HELLO | {"n": "many", "stop": "end", "logprobs": True, "top_logprobs": 20}).encode(),
        json.dumps({"prompt": ["a"] * 8, "n": 8}).encode(),
        json.dumps({"prompt": [1] * CONTEXT, "n": 2}).encode(),
        json.dumps({"prompt": [[1] * 100] * 8}).encode(),
        json.dumps({"model": "m" * 256, "input": ["a"] * 2048}).encode(),
        json.dumps({"previous_response_id": None, "input": "a"}).encode(),
        json.dumps({"model": None, "user": 5, "input": [1] * 4096}).encode(),
        json.dumps({"prompt": None, "n": None}).encode(),
        json.dumps({"messages": [{"role": "user", "content": "word " * CONTEXT}] * 8}).encode(),
        json.dumps({"messages": [{"image_url": {"url": "data:image/png;base64," + "A" * 4_000_000}}]}).encode(),
        json.dumps(HELLO | {"metadata": deep(40)}).encode(),
        json.dumps({"messages": [{"content": [{"input_audio": {"data": "A" * 4_000_000}}]}]}).encode(),
        json.dumps({"input": [{"content": [{"image_url": "data:image/png;base64," + "A" * 4_000_000}]}]}).encode(),
    ],
)
def test_what_people_send_is_not(body: bytes) -> None:
    check(body, MOST)


def test_a_longer_context_takes_longer_requests() -> None:
    assert characters(CONTEXT) == MOST and characters(1 << 20) == 16 << 20


def serve(
    body: list[bytes], method: str = "POST", kind: str = "http", path: str = "/v1/completions"
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """What the server behind the middleware gets of a request, and what is sent back."""
    seen: list[bytes] = []
    sent: list[Any] = []
    waiting = [
        {"type": "http.request", "body": part, "more_body": place < len(body) - 1} for place, part in enumerate(body)
    ]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            message = await receive()
            seen.append(message.get("body", b""))
            assert (await receive())["type"] == "http.disconnect"
        await send({"type": "app"})

    asyncio.run(RequestLimits(app)(scope(method, kind) | {"path": path}, receive, send))
    return seen, sent


def scope(method: str = "POST", kind: str = "http", client: str = "192.0.2.1") -> dict[str, Any]:
    config = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=CONTEXT),
        scheduler_config=SimpleNamespace(max_num_seqs=SHARE * 4 // 3),
    )
    state = SimpleNamespace(state=SimpleNamespace(vllm_config=config))
    return {"type": kind, "method": method, "app": state, "headers": [(b"x-forwarded-for", client.encode())]}


def test_a_body_comes_whole_to_the_server_behind() -> None:
    assert serve([b'{"a"', b": 1", b"}"]) == ([b'{"a": 1}'], [{"type": "app"}])
    large = json.dumps({"a": "b" * 200_000, "messages": [{"url": "d" * 400_000}]}).encode()
    assert serve([large])[0] == [large]
    assert serve([], kind="lifespan") == ([], [{"type": "app"}])
    assert serve([b""], method="GET")[0] == [b""]


def test_a_client_that_leaves_is_no_request() -> None:
    seen, sent = serve([])
    assert not seen and not sent


def test_a_refusal_has_the_shape_of_openais() -> None:
    seen, (start, end) = serve([json.dumps({"prompt": "a", "n": 100}).encode()])
    assert not seen and start["status"] == 400 and (b"content-type", b"application/json") in start["headers"]
    error = json.loads(end["body"])["error"]
    assert error == {
        "message": "The request asks for 100 answers; at most 64 answers in all.",
        "type": "invalid_request_error",
        "param": "n",
        "code": "integer_above_max_value",
    }


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a_refusal_of_messages_has_the_shape_of_anthropics(path: str) -> None:
    _, (start, end) = serve([json.dumps(HELLO | {"model": "m" * 257}).encode()], path=path)
    assert start["status"] == 400 and json.loads(end["body"]) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "model has 257 characters; at most 256."},
    }


def test_pictures_in_messages_are_not_counted() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 4_000_000}
    check(json.dumps({"messages": [{"content": [{"type": "image", "source": source}]}]}).encode(), MOST)


class Engine:
    """Answers when it is told to; says which requests it has, by client."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.leaves: dict[str, asyncio.Event] = {}
        self.limits = RequestLimits(self.app)
        self.answers: dict[str, list[Any]] = {}

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        name = json.loads((await receive())["body"])["name"]
        self.started.append(name)
        self.ends[name] = asyncio.Event()
        await self.ends[name].wait()

    async def ask(
        self, name: str, client: str = "192.0.2.1", body: bytes | None = None, **request: Any
    ) -> asyncio.Task[None]:
        """Returns once the request waits, is refused, or has come to the engine."""
        content = json.dumps({"name": name, "prompt": "a", **request}).encode() if body is None else body
        answer = self.answers.setdefault(name, [])

        sent = False
        self.leaves[name] = asyncio.Event()

        async def receive() -> Any:
            nonlocal sent
            if sent:
                await self.leaves[name].wait()
                return {"type": "http.disconnect"}
            sent = body is None
            return {"type": "http.request", "body": content, "more_body": body is not None}

        async def send(message: Any) -> None:
            answer.append(message)

        task = asyncio.create_task(self.limits(scope(client=client), receive, send))
        for _ in range(10):
            await asyncio.sleep(0)
        return task

    async def end(self, name: str) -> None:
        self.ends[name].set()
        for _ in range(10):
            await asyncio.sleep(0)


def test_one_client_leaves_seats_to_the_others() -> None:
    async def run() -> None:
        engine = Engine()
        for number in range(SHARE + 3):
            await engine.ask(f"a{number}")
        assert engine.started == [f"a{number}" for number in range(SHARE)]
        await engine.ask("b", client="192.0.2.2")
        assert engine.started[-1] == "b"
        await engine.end("a3")
        assert engine.started[-1] == f"a{SHARE}"
        await engine.end("b")
        assert len(engine.started) == SHARE + 2

    asyncio.run(run())


def test_answers_count_not_requests_and_turns_come_in_order() -> None:
    async def run() -> None:
        engine = Engine()
        await engine.ask("large", n=SHARE - 1)
        await engine.ask("pair", n=2)
        await engine.ask("one")
        assert engine.started == ["large"]
        await engine.end("large")
        assert engine.started == ["large", "pair", "one"]
        await engine.ask("everything", n=64)
        assert "everything" not in engine.started
        await engine.end("pair")
        await engine.end("one")
        assert engine.started[-1] == "everything"

    asyncio.run(run())


def test_who_leaves_while_waiting_keeps_nobody_waiting() -> None:
    async def run() -> None:
        engine = Engine()
        await engine.ask("first", n=SHARE)
        gone = await engine.ask("gone", n=SHARE)
        stopped = await engine.ask("stopped", n=SHARE)
        await engine.ask("next")
        engine.leaves["gone"].set()
        stopped.cancel()
        await asyncio.wait({gone, stopped})
        await engine.end("first")
        assert engine.started == ["first", "next"]
        await engine.end("next")
        assert not engine.limits.turns._clients

    asyncio.run(run())


def test_bodies_of_one_client_have_a_bound_together() -> None:
    async def run() -> None:
        engine = Engine()
        await engine.ask("endless", body=b"x" * (64 << 20))
        start, _ = engine.answers["endless"]
        assert start["status"] == 429 and (b"retry-after", b"5") in start["headers"]
        await engine.ask("later")
        assert engine.started == ["later"]

    asyncio.run(run())
