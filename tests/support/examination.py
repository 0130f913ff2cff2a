"""Examines the guide: questions about the product, general prompts, and requests for tools, from tests/data/guide."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aisandbox.guide.corpus import Entry
from aisandbox.teaching.judging import Rules

DATA = Path(__file__).parents[1] / "data" / "guide"
NAMED = re.compile(
    r"https?://[^\s,;)]+"  # addresses
    r"|\bsudo(?: [a-z][a-z-]*)+"  # commands
    r"|\baisandbox(?: [a-z][a-z-]*)+"
    r"|\bmake [a-z-]+"
    r"|(?<!\w)--[a-z][a-z-]+"  # options
    r"|(?<![\w.:/])/[a-z][\w./-]*[\w/]"  # paths
    r"|\bports? \d+"
)
"""What could be invented."""


@dataclass(frozen=True)
class Asked:
    """What a model is asked: messages and tools in the form of the chat API."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 160


@dataclass(frozen=True)
class Said:
    """What it answered: a text, or calls of tools with their arguments."""

    text: str
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


Model = Callable[[Sequence[Asked]], list[Said]]
"""Answers many questions at once."""


@dataclass
class Result:
    """How many answers were right, and what was wrong with the others."""

    name: str
    right: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.right / (self.right + len(self.wrong))

    def note(self, question: str, answer: str, broken: Sequence[str]) -> None:
        if broken:
            self.wrong.append(f"{question!r}: {'; '.join(broken)}\n    {answer!r}")
        else:
            self.right += 1

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.right} of {self.right + len(self.wrong)} ({self.share:.1%})"]
        return "\n".join([*lines, *(f"  {wrong}" for wrong in self.wrong)])


def one(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


def offered(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Tools of an OpenAPI document, in the form of the chat API, as Open WebUI makes them of it."""
    schemas = document["components"]["schemas"]
    found = []
    for operations in document["paths"].values():
        for operation in operations.values():
            properties = {entry["name"]: entry["schema"] for entry in operation.get("parameters", [])}
            required = [entry["name"] for entry in operation.get("parameters", []) if entry["required"]]
            if "requestBody" in operation:
                body = schemas[
                    operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                ]
                properties |= body["properties"]
                required += body.get("required", [])
            parameters = {"type": "object", "properties": properties, "required": required}
            function = {
                "name": operation["operationId"],
                "description": operation["description"],
                "parameters": parameters,
            }
            found.append({"type": "function", "function": function})
    return found


def read(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((DATA / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def product(model: Model, entries: Sequence[Entry]) -> tuple[Result, Result]:
    """Facts about the product in words that training never saw; and which answers name what does not exist."""
    known = {entry.id: entry for entry in entries}
    questions = read("product")
    answers = model([Asked(one(question["ask"])) for question in questions])
    facts, invented = Result("facts about the product"), Result("nothing invented")
    for question, said in zip(questions, answers, strict=True):
        rules = Rules(contains=[list(texts) for texts in known[question["about"]].facts])
        facts.note(f"{question['about']}: {question['ask']}", said.text, rules.broken(said.text))
        made_up = inventions(said.text, entries)
        invented.note(question["ask"], said.text, [f"invents {name}" for name in made_up])
    return facts, invented


def inventions(answer: str, entries: Iterable[Entry]) -> list[str]:
    """Addresses, commands, options, paths and ports in the answer that the corpus does not know."""
    known = "\n".join(entry.answer for entry in entries).lower()
    return sorted({name for name in NAMED.findall(answer.lower()) if name.rstrip(".:/") not in known})


def general(model: Model, name: str) -> Result:
    """Short general prompts, judged by stated facts and forms."""
    prompts = read("general")
    result = Result(f"general prompts, {name}")
    for prompt, said in zip(prompts, model([Asked(one(prompt["ask"])) for prompt in prompts]), strict=True):
        rules = {key.replace("json", "json_keys"): value for key, value in prompt.items()}
        for key in ("id", "kind", "ask"):
            rules.pop(key)
        result.note(prompt["ask"], said.text, Rules.model_validate(rules).broken(said.text))
    return result


def tool_calls(model: Model, tools: list[dict[str, Any]], system: str) -> tuple[Result, Result]:
    """The right call for each request, and an answer that uses what the tool returned."""
    requests = read("tool_calls")
    begun = [[{"role": "system", "content": system}, *one(request["ask"])] for request in requests]
    first = model([Asked(messages, tools) for messages in begun])
    calls, uses = Result("calls of tools"), Result("answers that use the result")
    went_on: list[tuple[dict[str, Any], Asked]] = []
    for request, messages, said in zip(requests, begun, first, strict=True):
        calls.note(request["ask"], f"{said.text} {said.calls}", _wrong_call(request["call"], said))
        name, arguments = said.calls[0] if said.calls else next(iter(_example(request["call"])))
        call = {"id": "call1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        answered = [
            *messages,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call1", "content": json.dumps(request["result"])},
        ]
        went_on.append((request, Asked(answered, tools)))
    for (request, _), said in zip(went_on, model([asked for _, asked in went_on]), strict=True):
        uses.note(request["ask"], said.text, Rules(contains=request["uses"]).broken(said.text))
    return calls, uses


def _wrong_call(expected: dict[str, dict[str, str]], said: Said) -> list[str]:
    if not said.calls:
        return ["calls no tool"]
    name, arguments = said.calls[0]
    if name not in expected:
        return [f"calls {name}"]
    return [
        f"{argument} is {arguments.get(argument)!r}"
        for argument, pattern in (expected[name] or {}).items()
        if not re.search(pattern, str(arguments.get(argument, "")))
    ]


def _example(expected: dict[str, dict[str, str]]) -> list[tuple[str, dict[str, str]]]:
    """A call to go on with where the model made none."""
    return [(name, dict.fromkeys(arguments or {}, "-")) for name, arguments in expected.items()]
