"""The question-and-answer corpus: load it, fill in its placeholders and expand its families of questions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

CORPUS = Path(__file__).with_name("corpus")
_JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - plain text, no page


class CorpusError(ValueError):
    """The corpus or the manifest it is rendered from is not usable."""


@dataclass(frozen=True)
class Tool:
    """How a question is answered when `run_command` is offered: the command, and the reply once it has run."""

    command: str
    reply: str


@dataclass(frozen=True)
class Entry:
    """One answer and the questions that lead to it; the held-out ones are checked but never trained on.

    A fallback entry holds questions that the guide does not know, and says so.
    """

    id: str
    answer: str
    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    tool: Tool | None = None
    fallback: bool = False


Asked = tuple[Entry, str]
"""A question together with the entry that holds its answer."""


def normalise(question: str) -> str:
    """The question as the chat template hands it to the model: two questions that agree here are one question."""
    return question.strip().lower().rstrip(" \n?!.")


def load_corpus(manifest: Path, folder: Path = CORPUS) -> list[Entry]:
    """All entries of the corpus, rendered with the ports, paths and names of the manifest and checked."""
    facts = _facts_of(manifest)
    entries = [entry for file in sorted(folder.glob("*.yaml")) for entry in _load_file(file, facts)]
    if not entries:
        raise CorpusError(f"no entries in {folder}")
    _require_distinct(entries)
    return entries


def _facts_of(manifest: Path) -> dict[str, Any]:
    """What placeholders can refer to: `product.*`, `ports.<name>` (the number) and `paths.*`."""
    try:
        data = yaml.safe_load(manifest.read_text(encoding="utf-8"))
        ports = {name: port["port"] for name, port in data["ports"].items()}
        return {"product": data["product"], "ports": ports, "paths": data["paths"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{manifest}: cannot read product, ports and paths ({error!r})") from error


def _load_file(file: Path, facts: Mapping[str, Any]) -> Iterator[Entry]:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        for raw in data["entries"]:
            yield from _expand(raw, data.get("answer"), facts)
    except (CorpusError, yaml.YAMLError) as error:
        raise CorpusError(f"{file.name}: {error}") from error
    except (jinja2.TemplateError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{file.name}: {error!r}") from error


def _expand(raw: Mapping[str, Any], shared_answer: str | None, facts: Mapping[str, Any]) -> Iterator[Entry]:
    """One entry per answer: the members of a family share an entry when they share their answer."""
    answers: dict[str, tuple[list[str], list[str]]] = {}
    for member in raw.get("each", [{}]):
        values = {**facts, **(member if isinstance(member, Mapping) else {"it": member})}
        answer = _render(raw.get("answer", shared_answer), values)
        questions, held_out = answers.setdefault(answer, ([], []))
        questions += [_render(question, values) for question in raw["questions"]]
        held_out += [_render(question, values) for question in raw.get("held_out", [])]
    for number, (answer, (questions, held_out)) in enumerate(answers.items(), start=1):
        identity = raw["id"] if len(answers) == 1 else f"{raw['id']}-{number}"
        tool, fallback = _tool(raw.get("tool")), "answer" not in raw
        yield Entry(identity, answer, tuple(questions), tuple(held_out), tool, fallback)


def _tool(raw: Mapping[str, Any] | None) -> Tool | None:
    if raw is None:
        return None
    return Tool(raw["command"], raw["reply"])


def _render(text: Any, values: Mapping[str, Any]) -> str:
    if not isinstance(text, str) or not text.strip():
        raise CorpusError(f"expected a text, found {text!r}")
    return _template(text).render(values).strip()


@functools.cache
def _template(text: str) -> jinja2.Template:
    return _JINJA.from_string(text)


def _require_distinct(entries: list[Entry]) -> None:
    """A question may lead to one answer only, and a held-out question must not be trained on."""
    answer_of: dict[str, str] = {}
    for entry in entries:
        for question in entry.questions:
            if normalise(question) in answer_of:
                raise CorpusError(f"{entry.id}: {question!r} appears twice")
            answer_of[normalise(question)] = entry.answer
    for entry in entries:
        for question in entry.held_out:
            if normalise(question) in answer_of:
                raise CorpusError(f"{entry.id}: the held-out question {question!r} appears twice")
            answer_of[normalise(question)] = entry.answer
