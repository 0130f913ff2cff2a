"""What the guide knows about the product: answers, questions that lead to them, and the facts that make them right."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

CORPUS = Path(__file__).with_name("corpus")
PRODUCT = CORPUS / "product.yaml"
_JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - plain text, no page


class CorpusError(ValueError):
    """The corpus or the manifest it is rendered from is not usable."""


@dataclass(frozen=True)
class Entry:
    """One answer and the questions that lead to it.

    Attributes:
        facts: what a right answer says; of each list at least one text.
    """

    id: str
    answer: str
    questions: tuple[str, ...]
    facts: tuple[tuple[str, ...], ...]


def normalise(question: str) -> str:
    """Two questions that agree here are one question."""
    return question.strip().lower().rstrip(" \n?!.")


def load_corpus(manifest: Path, path: Path = PRODUCT) -> list[Entry]:
    """All entries, rendered with the ports, paths and names of the manifest.

    Raises:
        CorpusError: the corpus or the manifest is not usable.
    """
    facts = _facts_of(manifest)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = [_entry(raw, facts) for raw in data["entries"]]
    except (OSError, yaml.YAMLError, jinja2.TemplateError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path.name}: {error!r}") from error
    _require_distinct(entries)
    return entries


def _facts_of(manifest: Path) -> dict[str, Any]:
    """What placeholders can refer to: `product.*`, `ports.<name>` (the number), `paths.*` and `user`."""
    try:
        data = yaml.safe_load(manifest.read_text(encoding="utf-8"))
        ports = {name: port["port"] for name, port in data["ports"].items()}
        return {"product": data["product"], "ports": ports, "paths": data["paths"], "user": data["os"]["default_user"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{manifest}: cannot read product, ports, paths and user ({error!r})") from error


def _entry(raw: Mapping[str, Any], values: Mapping[str, Any]) -> Entry:
    entry = Entry(
        raw["id"],
        _render(raw["answer"], values),
        tuple(_render(question, values) for question in raw["questions"]),
        tuple(tuple(_render(text, values) for text in texts) for texts in raw["facts"]),
    )
    for texts in entry.facts:
        if not any(text.lower() in entry.answer.lower() for text in texts):
            raise CorpusError(f"{entry.id}: its own answer lacks {' or '.join(texts)}")
    return entry


def _render(text: Any, values: Mapping[str, Any]) -> str:
    if not isinstance(text, str) or not text.strip():
        raise CorpusError(f"expected a text, found {text!r}")
    return _template(text).render(values).strip()


@functools.cache
def _template(text: str) -> jinja2.Template:
    return _JINJA.from_string(text)


def _require_distinct(entries: list[Entry]) -> None:
    """A question leads to one answer only."""
    seen: set[str] = set()
    for entry in entries:
        for question in map(normalise, entry.questions):
            if question in seen:
                raise CorpusError(f"{entry.id}: {question!r} appears twice")
            seen.add(question)
