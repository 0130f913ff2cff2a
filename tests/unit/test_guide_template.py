"""The guide's chat template, as transformers and vLLM render it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aisandbox.guide.files import CHAT_TEMPLATE

HOW = 'To use one, answer <tool_call>{"name": NAME, "arguments": {...}}</tool_call>'
USER = {"role": "user", "content": "Hi"}


def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, answering: bool = True) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(CHAT_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(messages=messages, tools=tools, add_generation_prompt=answering)


def tool(description: str, **properties: object) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": "act", "description": description, "parameters": parameters}}


def test_a_question() -> None:
    assert render([USER]) == (
        "<|im_start|>system\nYou are the guide of AI Sandbox.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_content_in_parts_is_the_same_text() -> None:
    parts = [{"type": "text", "text": "H"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "i"}]
    assert render([{"role": "user", "content": parts}]) == render([USER])


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_prompt_takes_the_place_of_the_guides_own(role: str) -> None:
    text = render([{"role": role, "content": "Be a pirate."}, USER])
    assert text.startswith("<|im_start|>system\nBe a pirate.<|im_end|>\n<|im_start|>user") and "guide" not in text


def test_later_instructions_stand_where_they_were_given() -> None:
    text = render([USER, {"role": "developer", "content": "Be brief."}, USER], answering=False)
    assert text.endswith(
        "user\nHi<|im_end|>\n<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("description", "shown"),
    [
        ("Do it. At once.", ": Do it"),
        ("Do it\nat once", ": Do it"),
        ("x" * 500, ": " + "x" * 80),
        ("", ""),
    ],
)
def test_a_tool_is_a_line(description: str, shown: str) -> None:
    text = render([USER], [tool(description, what={"type": "string"}, when={"type": "string"})])
    assert f"guide of AI Sandbox.\nTools:\nact(what, when?){shown}\n{HOW}<|im_end|>\n" in text


def test_a_tool_without_parameters() -> None:
    assert "\nact()\n" in render([USER], [{"type": "function", "function": {"name": "act"}}])


@pytest.mark.parametrize("arguments", [{"command": "date"}, '{"command": "date"}'])
def test_a_call_that_a_client_sends_back_reads_like_the_call_that_was_made(arguments: object) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": arguments}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    text = render([USER, answer, {"role": "tool", "tool_call_id": "1", "content": "Monday"}])
    assert text.endswith(
        '<|im_start|>assistant\n<tool_call>\n{"name": "run", "arguments": {"command": "date"}}\n</tool_call>'
        "<|im_end|>\n<|im_start|>tool\nMonday<|im_end|>\n<|im_start|>assistant\n"
    )


def test_more_messages_only_add_text() -> None:
    """What lets vLLM keep what it has read, and teaching find what is to be learned."""
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "S"}, USER, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "T"}, {"role": "assistant", "content": "A"}, USER,
    ]  # fmt: skip
    texts = [render(messages[:count], [tool("x")], answering=False) for count in range(1, len(messages) + 1)]
    assert all(after.startswith(before) and after != before for before, after in pairwise(texts))
