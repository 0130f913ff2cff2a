"""A stream is never silent for long, whatever its request waits for, and clients read it as ever."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion

from aisandbox.instance.serve import request_stream
from aisandbox.instance.serve.request_stream import COMMENT, kept_alive

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-engine", b"yes")],
}
PIECE, END = b'data: {"choices": []}\n\n', b"data: [DONE]\n\n"
ERROR = json.dumps({"error": {"message": "No.", "type": "x", "param": None, "code": 400}}).encode()

REFUSAL = START | {"status": 400, "headers": [(b"content-type", b"application/json")]}

Steps = list[float | dict[str, Any]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_stream, "INTERVAL_S", 0.05)


def body(content: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def answered(steps: Steps, stream: bool = True, named: bool = False) -> tuple[list[dict[str, Any]], list[float]]:
    """What the client gets, and when, while the server behind sends messages and sleeps."""
    sent: list[Any] = []
    times: list[float] = []

    async def send(message: Any) -> None:
        sent.append(message)
        times.append(asyncio.get_running_loop().time())

    async def run() -> None:
        times.append(asyncio.get_running_loop().time())
        async with kept_alive(send, stream, named) as kept:
            for step in steps:
                await (asyncio.sleep(step) if isinstance(step, float) else kept(step))
        await asyncio.sleep(0.2)  # nothing comes after the end

    asyncio.run(run())
    return sent, times


def text(sent: list[dict[str, Any]]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize(
    "steps",
    [
        [START, 0.3, body(PIECE), body(END, False)],
        [START, body(PIECE), 0.3, body(END), body(b"", False)],
        [0.3, START, body(PIECE), body(END, False)],
        [START, body(b""), 0.3, body(PIECE), body(END, False)],
    ],
)
def test_silence_is_filled_with_comments(steps: Steps) -> None:
    sent, times = answered(steps)
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert sent[0]["status"] == 200 and b"text/event-stream" in sent[0]["headers"][0][1]
    assert text(sent).count(COMMENT) >= 3 and text(sent).replace(COMMENT, b"") == PIECE + END
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.25
    assert not sent[-1]["more_body"]


@pytest.mark.parametrize(
    ("steps", "stream"),
    [
        ([START, body(PIECE), body(END, False)], True),
        ([START, body(PIECE[:9]), 0.2, body(PIECE[9:]), body(END, False)], True),
        (
            [0.2, START | {"status": 400, "headers": [(b"content-type", b"application/json")]}, body(ERROR, False)],
            False,
        ),
        ([START | {"headers": [(b"content-type", b"application/json")]}, 0.2, body(ERROR, False)], True),
        ([START, 0.2, body(PIECE), body(END, False)], False),
    ],
)
def test_what_is_no_silent_stream_is_left_as_it_is(steps: Steps, stream: bool) -> None:
    assert answered(steps, stream)[0] == [step for step in steps if not isinstance(step, float)]


@pytest.mark.parametrize("named", [False, True])
def test_a_refusal_after_the_wait_is_an_event(named: bool) -> None:
    sent, _ = answered([0.12, REFUSAL, body(ERROR[:20]), body(ERROR[20:], False)], named=named)
    assert sent[0]["status"] == 200 and not sent[-1]["more_body"]
    told = text(sent).replace(COMMENT, b"").decode()
    assert told.startswith("event: error\n") is named
    assert f"data: {ERROR.decode()}\n\n" in told and ("[DONE]" in told) is not named


def read(content: bytes) -> list[Completion]:
    """The pieces that OpenAI's client reads of a stream."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content)

    transport: Any = httpx.Client(transport=httpx.MockTransport(answer))
    client = openai.OpenAI(api_key="none", base_url="http://localhost/v1", http_client=transport)
    return list(client.completions.create(model="m", prompt="p", stream=True))


def test_the_official_client_reads_past_comments_and_tells_of_refusals() -> None:
    assert len(read(text(answered([0.12, START, body(PIECE), 0.12, body(END, False)])[0]))) == 1
    with pytest.raises(openai.APIError, match="No"):
        read(text(answered([0.12, REFUSAL, body(ERROR, False)])[0]))
