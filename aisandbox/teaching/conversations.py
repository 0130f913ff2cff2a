"""Conversations that a model learns from, and how they become tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IGNORED = -100
"""Label of a token that the model is not to learn: cross entropy leaves it out."""
ROLES = {"system", "user", "assistant", "tool"}

Render = Callable[[Sequence[dict[str, Any]], Sequence[dict[str, Any]], bool], str]
"""Messages, tools and whether an answer is to begin; gives the text that the model sees."""


class ConversationError(ValueError):
    """A conversation that nothing can be learned from."""


@dataclass(frozen=True)
class Conversation:
    """Messages in the form of the chat API, and the tools that were offered, in the form of the API, too.

    With `answer_tokens` only that many first tokens of every answer are learned: which answer to give is decided there,
    and the rest, once it is known, costs time for nothing.
    """

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]] = field(default_factory=tuple)
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Encoded:
    """Token ids, and of each token what the model is to predict there (`IGNORED`: nothing)."""

    tokens: list[int]
    labels: list[int]


def read_jsonl(path: Path) -> Iterator[Conversation]:
    """Conversations of a file of one `{"messages": [...], "tools": [...]}` a line, as OpenAI's fine-tuning takes them.

    Raises:
        ConversationError: a line is none; the message names it and says why.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield checked(json.loads(line))
            except (ConversationError, json.JSONDecodeError) as error:
                raise ConversationError(f"{path.name}, line {number}: {error}") from error


def checked(raw: Any) -> Conversation:
    """The conversation in parsed JSON.

    Raises:
        ConversationError: it has another form, or no answer.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("messages"), list):
        raise ConversationError('expected an object with a list "messages"')
    tools = raw.get("tools") or []
    if not isinstance(tools, list):
        raise ConversationError('"tools" is no list')
    for place, message in enumerate(raw["messages"], start=1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ConversationError(f"message {place} has no role of: {', '.join(sorted(ROLES))}")
        if not isinstance(message.get("content") or "", str):
            raise ConversationError(f"the content of message {place} is no text")
        if not message.get("content") and not message.get("tool_calls"):
            raise ConversationError(f"message {place} is empty")
    if not any(message["role"] == "assistant" for message in raw["messages"]):
        raise ConversationError("no message of the assistant: there is nothing to learn")
    return Conversation(raw["messages"], tools)


def encode(conversation: Conversation, render: Render, tokenize: Callable[[str], list[int]], end: str) -> Encoded:
    """Tokens of the whole conversation; labels are those of the assistant's messages.

    Works with every chat template whose text of some messages is the beginning of the text of more.

    Args:
        end: what ends a message, such as `<|im_end|>`.

    Raises:
        ConversationError: the template is not of that kind.
    """
    tokens, labels, seen = list[int](), list[int](), ""
    for place, message in enumerate(conversation.messages):
        if message["role"] != "assistant":
            continue
        before = render(conversation.messages[:place], conversation.tools, True)
        after = render(conversation.messages[: place + 1], conversation.tools, False)
        if not (before.startswith(seen) and after.startswith(before)):
            raise ConversationError("the chat template changes earlier messages when more follow")
        asked = tokenize(before[len(seen) :])
        answer, ending, _ = after[len(before) :].partition(end)
        answered = tokenize(answer + ending)
        learned = answered[: conversation.answer_tokens] if conversation.answer_tokens else answered
        tokens += asked + answered
        labels += [IGNORED] * len(asked) + learned + [IGNORED] * (len(answered) - len(learned))
        seen = before + answer + ending
    if conversation.answer_tokens:
        last = max(place for place, label in enumerate(labels) if label != IGNORED) + 1
        tokens, labels = tokens[:last], labels[:last]
    return Encoded(tokens, labels)


def batches(examples: Iterable[Encoded], tokens: int) -> Iterator[list[Encoded]]:
    """Examples of like length together, so that at most `tokens` are in a batch, padding included."""
    batch: list[Encoded] = []
    for example in sorted(examples, key=lambda example: len(example.tokens)):
        if batch and len(example.tokens) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch
