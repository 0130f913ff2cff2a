"""Anthropic's API with its official client: real vLLM behind the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic.types import Message, MessageParam, ToolParam

from aisandbox.builder.machine import Machine
from aisandbox.guide.corpus import Entry
from tests.support.machines import MANIFEST, url

MODEL = MANIFEST.embedded_model.id
RESULT: dict[str, Any] = {"exit_code": 0, "stdout": "Linux aisandbox 6.1.7", "stderr": ""}
LONG = f"Say hello. {'These words are read once. ' * 60}"
SURE = {"temperature": 0}
"""Anthropic's own client no longer has a name for it."""
TOOL: ToolParam = {
    "name": "run_command",
    "description": "Run a command.",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def claude(machine: Machine) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url(machine, "api"), api_key="none", max_retries=0, timeout=60) as client:
        yield client


def ask(question: str) -> list[MessageParam]:
    return [{"role": "user", "content": question}]


def test_an_answer(claude: anthropic.Anthropic, known: Entry) -> None:
    answer = claude.messages.create(model=MODEL, max_tokens=200, messages=ask(known.questions[0]), extra_body=SURE)
    (block,) = answer.content
    assert block.type == "text" and block.text == known.answer
    assert (answer.role, answer.stop_reason) == ("assistant", "end_turn")
    counted = claude.messages.count_tokens(model=MODEL, messages=ask(known.questions[0]))
    usage = answer.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert usage.output_tokens > 10


def test_a_stream(claude: anthropic.Anthropic, known: Entry) -> None:
    question = ask(known.questions[0])
    with claude.messages.stream(model=MODEL, max_tokens=200, messages=question, extra_body=SURE) as stream:
        pieces = list(stream.text_stream)
        answer = stream.get_final_message()
    assert "".join(pieces) == known.answer and len(pieces) > 5
    assert answer.stop_reason == "end_turn" and answer.usage.output_tokens > 10


def test_an_answer_that_is_cut_off(claude: anthropic.Anthropic, known: Entry) -> None:
    answer = claude.messages.create(model=MODEL, max_tokens=3, messages=ask(known.questions[0]))
    assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 3)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool(claude: anthropic.Anthropic, streamed: bool) -> None:
    """The model asks for a call, gets the result and answers."""
    told: dict[str, Any] = {"model": MODEL, "max_tokens": 200, "extra_body": SURE, "tools": [TOOL]}
    messages = ask("run uname -a")

    def answer() -> Message:
        if not streamed:
            said: Message = claude.messages.create(messages=messages, **told)
            return said
        with claude.messages.stream(messages=messages, **told) as stream:
            return stream.get_final_message()

    asked = answer()
    assert asked.stop_reason == "tool_use"
    call = next(block for block in asked.content if block.type == "tool_use")
    assert (call.name, call.input) == ("run_command", {"command": "uname -a"})
    result: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": json.dumps(RESULT)}],
    }
    messages += [{"role": "assistant", "content": asked.content}, result]
    said = answer()
    assert said.stop_reason == "end_turn"
    assert RESULT["stdout"] in "".join(block.text for block in said.content if block.type == "text")


def test_what_was_read_before_is_told_in_both_dialects(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    for _ in range(2):
        answer = claude.messages.create(model=MODEL, max_tokens=1, messages=ask(LONG))
    total = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert (answer.usage.cache_read_input_tokens or 0) > 0.9 * total
    said = client.chat.completions.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": LONG}])
    assert said.usage and said.usage.prompt_tokens_details and said.usage.prompt_tokens == total
    assert (said.usage.prompt_tokens_details.cached_tokens or 0) > 0.9 * total


def test_mistakes(machine: Machine, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="acme/other") as unknown:
        claude.messages.create(model="acme/other", max_tokens=1, messages=ask("Hello"))
    with pytest.raises(anthropic.BadRequestError) as long:
        claude.messages.create(model="m" * 300, max_tokens=1, messages=ask("Hello"))
    with pytest.raises(anthropic.BadRequestError) as endless:
        claude.messages.create(model=MODEL, max_tokens=1, messages=ask("word " * 20_000))
    for refused in (unknown, long, endless):
        body = refused.value.body
        assert isinstance(body, dict) and body["type"] == "error" and body["error"]["message"]
    answer = httpx.post(url(machine, "api", "/v1/messages"), content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and "Traceback" not in answer.text


def test_one_model_by_its_name(client: openai.OpenAI) -> None:
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="served is") as unknown:
        client.models.retrieve("acme/other")
    assert unknown.value.code == "model_not_found"
