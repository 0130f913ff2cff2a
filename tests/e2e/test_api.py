"""The API port with the official client and with curl: real vLLM, and answers that are known in advance."""

from __future__ import annotations

import asyncio
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from aisandbox.builder.machine import Machine
from aisandbox.guide.corpus import Entry
from aisandbox.teaching.judging import Rules
from tests.support.machines import MANIFEST, Visitor, url

MODEL = MANIFEST.embedded_model.id


def ask(question: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": question}]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


@pytest.mark.parametrize("path", ["/health", "/ready", "/version", "/v1/models"])
def test_probes_by_head(machine: Machine, path: str) -> None:
    assert httpx.head(url(machine, "api", path)).status_code == httpx.get(url(machine, "api", path)).status_code == 200


def test_clients_that_ask_for_http2_in_clear_text(machine: Machine) -> None:
    wish = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    form = {"model": MODEL, "messages": ask("Who are you?"), "max_tokens": 3}
    assert (
        httpx.post(url(machine, "api", "/v1/chat/completions"), json=form, headers=wish, timeout=60).status_code == 200
    )
    sign_in = httpx.post(url(machine, "chat", "/api/v1/auths/signin"), json={"email": "", "password": ""}, headers=wish)
    assert sign_in.status_code == 200


def test_chat(client: openai.OpenAI, known: Entry) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ask(known.questions[0]), temperature=0)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (known.answer, "stop")
    assert answer.usage and answer.usage.completion_tokens > 10


def test_chat_of_several_turns(client: openai.OpenAI, corpus: dict[str, Entry]) -> None:
    """Questions are understood after others."""
    first, *others = list(corpus.values())[:13]
    wrong = []
    for entry in others:
        alone = client.chat.completions.create(model=MODEL, messages=ask(entry.questions[0]), temperature=0)
        messages: list[ChatCompletionMessageParam] = [
            *ask(first.questions[0]),
            {"role": "assistant", "content": first.answer},
            *ask(entry.questions[0]),
        ]
        answer = client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
        assert answer.choices[0].finish_reason == "stop"
        assert alone.usage and answer.usage and answer.usage.prompt_tokens > alone.usage.prompt_tokens + 10
        text = answer.choices[0].message.content or ""
        if Rules(contains=[list(texts) for texts in entry.facts]).broken(text):
            wrong.append((entry.questions[0], text))
    assert wrong == []


def test_streamed_chat(client: openai.OpenAI, known: Entry) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=ask(known.questions[0]),
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == known.answer
    assert len([piece for piece in pieces if piece]) > 5
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens >= len(pieces) - 2


def test_many_at_once(machine: Machine, corpus: dict[str, Entry]) -> None:
    """The asynchronous client, plain and streaming, in parallel."""
    entries = list(corpus.values())[:8]

    async def plain(client: openai.AsyncOpenAI, question: str) -> str | None:
        answer = await client.chat.completions.create(model=MODEL, messages=ask(question), temperature=0)
        return answer.choices[0].message.content

    async def streamed(client: openai.AsyncOpenAI, question: str) -> str:
        stream = await client.chat.completions.create(model=MODEL, messages=ask(question), temperature=0, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def everything() -> list[str | None]:
        base = url(machine, "api", "/v1")
        async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as client:
            ways = [way(client, entry.questions[0]) for entry in entries for way in (plain, streamed)]
            return await asyncio.gather(*ways)

    assert asyncio.run(everything()) == [entry.answer for entry in entries for _ in range(2)]


def test_plain_completions(client: openai.OpenAI) -> None:
    # So small a model may have nothing more to say after a bare word.
    longer = {"ignore_eos": True}
    answer = client.completions.create(model=MODEL, prompt="Hello", max_tokens=5, temperature=0, extra_body=longer)
    assert answer.usage and answer.usage.completion_tokens == 5
    stream = client.completions.create(
        model=MODEL, prompt="Hello", max_tokens=5, temperature=0, extra_body=longer, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_responses(client: openai.OpenAI, known: Entry) -> None:
    response = client.responses.create(model=MODEL, input=known.questions[0], temperature=0)
    assert (response.status, response.output_text) == ("completed", known.answer)


def test_responses_go_on_by_items(client: openai.OpenAI, known: Entry) -> None:
    """None is kept, and the refusal says what to send instead."""
    # The cache holds whole blocks of tokens, on processors of 128.
    question = f"{'These words are read once. ' * 40}{known.questions[0]}"
    first = client.responses.create(model=MODEL, input=question, temperature=0, max_output_tokens=20)
    with pytest.raises(openai.BadRequestError, match="earlier items again"):
        client.responses.create(model=MODEL, input="And then?", previous_response_id=first.id)
    items = [{"role": "user", "content": question}, *first.output, {"role": "user", "content": "Thank you"}]
    again = client.responses.create(model=MODEL, input=items, max_output_tokens=20)  # type: ignore[arg-type]
    assert again.usage and first.usage
    assert again.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens // 2
    assert again.usage.input_tokens_details.cached_tokens > 0


def test_streamed_responses(client: openai.OpenAI, known: Entry) -> None:
    with client.responses.create(model=MODEL, input=known.questions[0], temperature=0, stream=True) as events:
        seen = list(events)
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == known.answer
    assert seen[0].type == "response.created" and seen[-1].type == "response.completed"


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client: openai.OpenAI, stream: bool) -> None:
    """The model asks for a call, gets the result and answers."""
    name, arguments = "run_command", {"command": "uname -a"}
    parameters: dict[str, object] = {"type": "object", "properties": {key: {"type": "string"} for key in arguments}}
    tools: list[ChatCompletionToolParam] = [
        {"type": "function", "function": {"name": name, "description": "Run a command.", "parameters": parameters}}
    ]
    messages: list[Any] = [*ask("run uname -a")]
    if stream:
        with client.chat.completions.stream(model=MODEL, messages=messages, tools=tools, temperature=0) as events:
            choice = events.get_final_completion().choices[0].model_dump()
    else:
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools, temperature=0)
        choice = answer.choices[0].model_dump()
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (name, arguments)
    function = {"name": name, "arguments": call["function"]["arguments"]}
    messages += [
        {"role": "assistant", "tool_calls": [{"id": call["id"], "type": "function", "function": function}]},
        {
            "role": "tool",
            "tool_call_id": call["id"],
            "content": json.dumps({"exit_code": 0, "stdout": "Linux aisandbox 6.1.7", "stderr": ""}),
        },
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools, temperature=0)
    assert answer.choices[0].finish_reason == "stop"
    assert "Linux aisandbox 6.1.7" in (answer.choices[0].message.content or "")


def test_structured_output(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]},
            "large": {"type": "boolean"},
            "rivers": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
        },
        "required": ["city", "large", "rivers"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=ask("What is the capital of France?"),
        temperature=0,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": schema}},
    )
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)


def test_sampling(client: openai.OpenAI) -> None:
    """Several answers at once; a seed repeats one, and another seed gives another one."""

    def said(n: int = 1, **choices: Any) -> list[str]:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=ask("Tell me a short story about a fox."),
            max_tokens=24,
            n=n,
            **choices,
        )
        return [choice.message.content or "" for choice in answer.choices]

    first, second = said(n=2, temperature=1)
    assert first and second and first != second
    assert said(seed=1, temperature=1) == said(seed=1, temperature=1) != said(seed=2, temperature=1)
    assert len(said(n=2)) == 2


def test_a_long_prompt_is_read(client: openai.OpenAI, known: Entry) -> None:
    """The context holds 4,096 tokens."""
    (model,) = client.models.list()
    assert getattr(model, "max_model_len", None) == 4096
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Here is a list of words: " + "stone river " * 1800},
        *ask(known.questions[0]),
    ]
    # A processor without instructions for bfloat16 reads some 50 tokens in a second.
    patient = client.with_options(timeout=400)
    answer = patient.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=60)
    assert answer.usage and 3500 < answer.usage.prompt_tokens < 4000
    # What so small a model says to so many words is its own business.
    assert answer.usage.completion_tokens > 0 and answer.choices[0].finish_reason in {"stop", "length"}


def test_embeddings_are_refused_in_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        client.embeddings.create(model=MODEL, input="Hello")
    assert isinstance(refusal.value.body, dict)
    assert "the model makes no embeddings" in refusal.value.body["message"]


def test_an_unknown_model_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no/such-model"):
        client.chat.completions.create(model="no/such-model", messages=ask("Hello"))


def test_a_request_that_is_too_long_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context length"):
        client.completions.create(model=MODEL, prompt="Hello " * 20_000, max_tokens=1)


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/load_lora_adapter", "/metrics", "/tokenize", "/docs", "/"])
def test_other_routes_are_unknown(machine: Machine, path: str) -> None:
    response = httpx.post(url(machine, "api", path), json={"model": MODEL})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")


def test_a_wrong_method_is_refused(machine: Machine) -> None:
    response = httpx.get(url(machine, "api", "/v1/chat/completions"))
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


def curl(machine: Machine, *options: str, **body: object) -> str:
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "60", *options]
    command += ["--header", "Content-Type: application/json", "--data", json.dumps({"model": MODEL, **body})]
    command.append(url(machine, "api", "/v1/chat/completions"))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_curl(machine: Machine, known: Entry) -> None:
    answer = json.loads(curl(machine, messages=ask(known.questions[0]), temperature=0))
    assert answer["choices"][0]["message"]["content"] == known.answer


def test_curl_streams(machine: Machine, known: Entry) -> None:
    lines = curl(machine, "--no-buffer", messages=ask(known.questions[0]), temperature=0, stream=True).splitlines()
    events = [line.removeprefix("data: ") for line in lines if line]
    assert all(line.startswith("data: ") for line in lines if line)
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert "".join(pieces) == known.answer


def test_the_chat_port_answers_the_same(machine: Machine, client: openai.OpenAI, known: Entry) -> None:
    question = known.questions[0]
    answer = client.chat.completions.create(model=MODEL, messages=ask(question), temperature=0)
    assert Visitor(machine).ask(MODEL, question) == answer.choices[0].message.content == known.answer


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"n": 65}, "integer_above_max_value"),
        ({"extra_body": {"truncate_prompt_tokens": 5}, "prompt": "word " * 100_000}, "context_length_exceeded"),
        ({"prompt": ["Hello"] * 65}, "integer_above_max_value"),
        ({"extra_body": {"structured_outputs": {"regex": "(a|b)*" * 1000}}}, "string_above_max_length"),
    ],
)
def test_what_would_hold_up_the_engine_is_refused(client: openai.OpenAI, asked: dict[str, Any], code: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(**{"model": MODEL, "prompt": "Hello", "max_tokens": 1, **asked})
    assert refusal.value.code == code


@pytest.mark.parametrize(
    "expected",
    [
        {"regex": "(.*)*" * 60},
        {"regex": "(a*)*" * 800},
        {"grammar": 'root ::= a a a a\na ::= "x" | a a | ""'},
        {"json": {"$ref": "#"}},
    ],
)
def test_a_slow_expression_stops_nobody(client: openai.OpenAI, expected: dict[str, Any]) -> None:
    """It is answered or refused; until then, others get their answers. It used to stall them for minutes."""
    impatient = client.with_options(timeout=60, max_retries=0)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(
            impatient.chat.completions.create,
            model=MODEL, messages=ask("Hello"), max_tokens=20, extra_body={"structured_outputs": expected},
        )  # fmt: skip
        assert impatient.chat.completions.create(model=MODEL, messages=ask("Hello"), max_tokens=5).choices
        with suppress(openai.BadRequestError):
            assert slow.result().choices


def test_logprobs_cost_nobody_a_wait(client: openai.OpenAI) -> None:
    answer = client.with_options(timeout=20, max_retries=0).chat.completions.create(
        model=MODEL, messages=ask("Hello"), max_tokens=2, logprobs=True, top_logprobs=20
    )
    assert answer.choices[0].logprobs and len((answer.choices[0].logprobs.content or [])[0].top_logprobs) == 20
