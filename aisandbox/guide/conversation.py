"""Conversations made from the corpus, for training and for checking, and how the chat template renders them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from aisandbox.guide.corpus import Entry, Tool

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
_TEMPLATE = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)

TOOL = "run_command"
"""The one tool that the guide can use, by the name that the sandbox gives it in the chat page."""


@dataclass
class Conversation:
    """Messages in the form of the chat API, and whether the tool is offered."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    offered: bool = False

    def ask(self, entry: Entry, question: str, *, run: bool = True) -> None:
        """Add a question and its right answer; with the tool, its call and, when it is `run`, the reply to that."""
        self.messages.append({"role": "user", "content": question})
        if entry.tool is None or not self.offered:
            self.messages.append({"role": "assistant", "content": entry.answer})
            return
        self.messages.append({"role": "assistant", "content": tool_call(entry.tool)})
        if run:
            self.messages.append({"role": "tool", "content": ""})
            self.messages.append({"role": "assistant", "content": entry.tool.reply})

    def render(self) -> str:
        """The text that the model sees, by the chat template that is also served."""
        tools = [{"type": "function", "function": {"name": TOOL}}] if self.offered else []
        return _TEMPLATE.render(messages=self.messages, tools=tools, add_generation_prompt=False)


def tool_call(tool: Tool) -> str:
    """The call of the tool as text, in the format that vLLM's hermes parser reads."""
    return "<tool_call>\n" + json.dumps({"name": TOOL, "arguments": {"command": tool.command}}) + "\n</tool_call>"
