"""Conversations made from the corpus, for training and for checking, and how the chat template renders them."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from aisandbox.guide.corpus import Entry, Tool

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
_TEMPLATE = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)

_VERBS = ("get", "set", "list", "find", "search", "read", "write", "create", "delete", "update", "send", "check", "run")
_NOUNS = ("weather", "file", "files", "page", "web", "user", "event", "note", "image", "mail", "task", "code", "data")


@dataclass
class Conversation:
    """Messages in the form of the chat API, and the names of the tools that are offered."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)

    def ask(self, entry: Entry, question: str, result: str | None = None) -> None:
        """Add a question and its right answer; with a fitting tool, its call, the result and the reply."""
        self.messages.append({"role": "user", "content": question})
        name = next((name for name in entry.tool.names if name in self.tools), None) if entry.tool else None
        if entry.tool is None or name is None:
            self.messages.append({"role": "assistant", "content": entry.answer})
            return
        self.messages.append({"role": "assistant", "content": tool_call(name, entry.tool)})
        if result is not None:
            self.messages.append({"role": "tool", "content": result})
            self.messages.append({"role": "assistant", "content": entry.tool.reply})

    def render(self) -> str:
        """The text that the model sees, by the chat template that is also served."""
        tools = [{"type": "function", "function": {"name": name}} for name in self.tools]
        return _TEMPLATE.render(messages=self.messages, tools=tools, add_generation_prompt=False)


def tool_call(name: str, tool: Tool) -> str:
    """The call of a tool as text, in the format that vLLM's hermes parser reads."""
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": tool.arguments}) + "\n</tool_call>"


def tool_families(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """The groups of tool names that mean the same; a conversation offers at most one name of each."""
    return sorted({entry.tool.names for entry in entries if entry.tool})


def other_tools(rng: random.Random, count: int) -> list[str]:
    """Names of tools that the guide has no use for."""
    return [f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS)}" for _ in range(count)]


def offer_tools(rng: random.Random, wanted: Sequence[str], others: int) -> list[str]:
    """A shuffled list of the wanted tools among other ones."""
    tools = [*wanted, *other_tools(rng, others)]
    rng.shuffle(tools)
    return tools


def vary(result: str, rng: random.Random) -> str:
    """A result of the same shape with other digits and some other letters."""
    return "".join(_vary_character(character, rng) for character in result)


def _vary_character(character: str, rng: random.Random) -> str:
    if character in string.digits:
        return rng.choice(string.digits)
    if character in string.ascii_lowercase and rng.random() < 0.2:
        return rng.choice(string.ascii_lowercase)
    return character
