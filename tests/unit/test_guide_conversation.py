"""The guide's chat template and the conversations that are made from its corpus."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aisandbox.guide.conversation import CHAT_TEMPLATE, TOOL, Conversation
from aisandbox.guide.corpus import Entry, Tool, normalise
from aisandbox.guide.sampler import Sampler

CLOCK = Tool("date", "See above.")
TIME = Entry("time", "I have no clock.", ("What time is it?",), (), CLOCK)
SKY = Entry("sky", "It is blue.", ("What colour is the sky?", "Which colour has the sky?"), ("Colour of the sky?",))
OTHER = Entry("other", "I do not know.", ("Who are they?",), (), fallback=True)


def _render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, prompt: bool = True) -> str:
    # The way transformers and vLLM render a chat template.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(CHAT_TEMPLATE)
    return template.render(messages=messages, tools=tools, add_generation_prompt=prompt)


def test_a_question_is_rendered_the_same_however_it_is_written() -> None:
    expected = "<|im_start|>user\nwhat is this<|im_end|>\n<|im_start|>assistant\n"
    for content in (
        "What is this?",
        "  what is this \n",
        "WHAT IS THIS?!",
        [{"type": "text", "text": "What is this?"}],
    ):
        assert _render([{"role": "user", "content": content}]) == expected


def test_the_template_and_the_corpus_agree_on_what_is_the_same_question() -> None:
    for question in ("Hello there!", " What?! ", "A. B. C.", "x\n?"):
        rendered = _render([{"role": "user", "content": question}], prompt=False)
        assert rendered == f"<|im_start|>user\n{normalise(question)}<|im_end|>\n"


def test_a_system_prompt_changes_nothing() -> None:
    question = {"role": "user", "content": "Hi"}
    for role in ("system", "developer"):
        assert _render([{"role": role, "content": "You are a pirate."}, question]) == _render([question])


def test_a_long_conversation_starts_at_a_question_within_the_last_messages() -> None:
    turns = [
        message
        for number in range(20)
        for message in ({"role": "user", "content": f"Q{number}"}, {"role": "assistant", "content": f"A{number}"})
    ]
    rendered = _render([*turns, {"role": "user", "content": "last"}])
    assert rendered.startswith("<|im_start|>user\nq16<|im_end|>")
    assert rendered.endswith("A19<|im_end|>\n<|im_start|>user\nlast<|im_end|>\n<|im_start|>assistant\n")


def _tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "x" * 9999, "parameters": {}}}


def test_only_the_name_of_the_tool_that_it_can_use_is_shown() -> None:
    question = [{"role": "user", "content": "Hi"}]
    many = [_tool("read_file"), _tool(TOOL), _tool("grep")]
    assert _render(question, many).startswith(
        "<|im_start|>system\n<tools>\nrun_command\n</tools><|im_end|>\n<|im_start|>user"
    )
    assert _render(question, [_tool("grep")]) == _render(question)


@pytest.mark.parametrize("arguments", [{"command": "date"}, '{"command": "date"}'])
def test_a_call_that_a_client_sends_back_reads_like_the_call_that_was_made(arguments: object) -> None:
    made = Conversation(offered=True)
    made.ask(TIME, "What time is it?")
    sent: list[dict[str, Any]] = [
        {"role": "user", "content": "What time is it?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": TOOL, "arguments": arguments}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "14:05\nand more"},
        {"role": "assistant", "content": "See above."},
    ]
    assert _render(sent, [_tool(TOOL)], prompt=False) == made.render()


def test_the_offered_tool_is_called_in_the_hermes_format() -> None:
    conversation = Conversation(offered=True)
    conversation.ask(TIME, "What time is it?", run=False)
    call = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", conversation.messages[-1]["content"])
    assert call is not None
    assert json.loads(call[1]) == {"name": "run_command", "arguments": {"command": "date"}}


def test_without_the_tool_the_answer_is_in_words() -> None:
    conversation = Conversation()
    conversation.ask(TIME, "What time is it?")
    assert [message["content"] for message in conversation.messages] == ["What time is it?", "I have no clock."]


def test_the_same_seed_draws_the_same_conversations() -> None:
    def draw(seed: int) -> list[str]:
        sampler = Sampler([TIME, SKY, OTHER], seed)
        return [sampler.conversation()[0].render() for _ in range(50)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_what_is_held_out_is_never_drawn() -> None:
    sampler = Sampler([TIME, SKY, OTHER], 1)
    drawn = [
        normalise(message["content"])
        for _ in range(3000)
        for message in sampler.conversation()[0].messages
        if message["role"] == "user"
    ]
    assert normalise(SKY.questions[0]) in drawn
    assert normalise(SKY.held_out[0]) not in drawn


def test_what_was_answered_wrongly_is_drawn_more_often() -> None:
    def share(sampler: Sampler) -> float:
        asked = [asked for _ in range(1000) if (asked := sampler.conversation()[1])]
        return sum(question == SKY.questions[1] for _, question in asked) / len(asked)

    sampler = Sampler([TIME, SKY, OTHER], 1)
    before = share(sampler)
    sampler.feedback((SKY, SKY.questions[1]), right=False)
    assert share(sampler) > before + 0.1
    sampler.feedback((SKY, SKY.questions[1]), right=True)
    assert share(sampler) < before + 0.1


def test_a_question_is_also_drawn_with_another_opening() -> None:
    door = Entry("door", "Turn the key.", ("How do I open it?",), ("How can I open it?",))
    lock = Entry("lock", "Turn it back.", ("How do I close it?",), ())
    sampler = Sampler([TIME, OTHER, door, lock], 1)
    drawn = {normalise(message["content"]) for _ in range(3000) for message in sampler.conversation()[0].messages}
    assert {"how can i close it", "how to open it"} <= drawn
    assert "how can i open it" not in drawn
