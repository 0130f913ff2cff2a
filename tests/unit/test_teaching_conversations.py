"""Conversations to learn from: read from files, refused in words, and turned into tokens and labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aisandbox.teaching.conversations import (
    IGNORED,
    Conversation,
    ConversationError,
    Encoded,
    batches,
    encode,
    read_jsonl,
)

HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]


def render(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], answering: bool) -> str:
    text = "".join(f"[{tool['name']}]" for tool in tools)
    text += "".join(f"{message['role'][0]}:{message['content']}|\n" for message in messages)
    return text + ("a:" if answering else "")


def tokenize(text: str) -> list[int]:
    return [ord(character) for character in text]


def words(ids: Sequence[int]) -> str:
    return "".join("_" if place == IGNORED else chr(place) for place in ids)


def test_only_answers_are_learned() -> None:
    found = encode(Conversation([*HELLO, *HELLO], [{"name": "t"}]), render, tokenize, "|")
    assert words(found.tokens) == "[t]u:hi|\na:yo|\nu:hi|\na:yo|"
    assert words(found.labels) == "_" * 11 + "yo|" + "_" * 9 + "yo|"


def test_of_a_known_answer_its_beginning_is_enough() -> None:
    found = encode(Conversation(HELLO, answer_tokens=1), render, tokenize, "|")
    assert words(found.tokens) == "u:hi|\na:y" and words(found.labels) == "_" * 8 + "y"


def test_a_template_that_changes_earlier_messages_is_refused() -> None:
    def counting(messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], answering: bool) -> str:
        return f"{len(messages)} {render(messages, tools, answering)}"

    with pytest.raises(ConversationError, match="earlier messages"):
        encode(Conversation(HELLO), counting, tokenize, "|")


def test_batches_hold_like_lengths_and_no_more_than_fit() -> None:
    examples = [Encoded([0] * length, [0] * length) for length in (9, 1, 5, 5, 2, 30)]
    found = [[len(example.tokens) for example in batch] for batch in batches(examples, 12)]
    assert found == [[1, 2, 5], [5], [9], [30]] or found == [[1, 2], [5, 5], [9], [30]]
    assert all(len(batch) == 1 or max(batch) * len(batch) <= 15 for batch in found)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2: "),
        ("[]", '"messages"'),
        ('{"messages": []}', "no message of the assistant"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no message of the assistant"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "message 1 has no role"),
        ('{"messages": [{"role": "user", "content": [1]}]}', "content of message 1"),
        ('{"messages": [{"role": "user", "content": ""}]}', "message 1 is empty"),
        ('{"messages": ["x"]}', "message 1 has no role"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "tools": 1}', '"tools"'),
    ],
)
def test_what_is_no_conversation_is_named_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "lessons.jsonl"
    path.write_text(json.dumps({"messages": HELLO}) + "\n" + line + "\n")
    with pytest.raises(ConversationError) as caught:
        list(read_jsonl(path))
    assert "lessons.jsonl, line 2: " in str(caught.value) and reason in str(caught.value)


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "lessons.jsonl"
    path.write_text("\n".join(["", json.dumps({"messages": HELLO, "tools": None}), ""]))
    assert list(read_jsonl(path)) == [Conversation(HELLO, [])]
