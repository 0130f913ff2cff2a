"""What the guide is taught: the product, tools, documents, and what its base would have said to everything else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aisandbox.guide.corpus import CORPUS, Entry, load_corpus
from aisandbox.guide.document_lessons import documents
from aisandbox.guide.tool_lessons import ToolTeacher, described, offered
from aisandbox.guide.wording import WORKSPACE, phrases
from aisandbox.teaching.conversations import Conversation

DECISIVE_TOKENS = 24
"""Within so many tokens of an answer it is decided which one it is."""
GENERAL_TOKENS = 120
"""Of the base's own answers."""
WITH_TOOLS = 0.16
"""Share of the lessons without need of a tool that offer some."""


@dataclass(frozen=True)
class General:
    """A general prompt and what the base itself says to it."""

    prompt: str
    answer: str
    whole: bool
    """Whether the answer ended by itself."""


@dataclass(frozen=True)
class Material:
    """What lessons are made of: entries about the product, requests for commands, and the base's own answers."""

    entries: Sequence[Entry]
    commands: Sequence[Mapping[str, Any]]
    tools: Sequence[dict[str, Any]]
    general: Sequence[General]

    @classmethod
    def read(cls, manifest: Path, general: Sequence[General]) -> Material:
        """The corpus, and prompts with the base's answers."""
        commands = yaml.safe_load((CORPUS / "commands.yaml").read_text(encoding="utf-8"))["commands"]
        tools = yaml.safe_load((CORPUS / "tools.yaml").read_text(encoding="utf-8"))["tools"]
        return cls(load_corpus(manifest), commands, [described(tool) for tool in tools], general)


def prompts() -> list[str]:
    """General prompts that the base is asked before it is taught."""
    return (CORPUS / "general.txt").read_text(encoding="utf-8").replace("\\n", "\n").splitlines()


def epoch(material: Material, number: int) -> list[Conversation]:
    """Every question once, in other surroundings each time, and as much of the rest as keeps the balance."""
    teacher, tools = _teachers(material, number)
    return [
        *teacher.product(),
        *teacher.general(),
        *teacher.longer(120),
        *tools.commands(650),
        *tools.made_up(160),
        *tools.others(260),
        *documents(teacher.rng, 110),
    ]


def practice(material: Material, number: int) -> list[Conversation]:
    """Conversations as on the chat page, where one request follows another; and some of all the rest again."""
    teacher, tools = _teachers(material, number)
    return [
        *teacher.conversations(tools, 420),
        *teacher.rng.sample(list(teacher.product()), 1400),
        *teacher.rng.sample(list(teacher.general()), len(material.general) // 2),
        *tools.commands(120),
        *tools.others(90),
        *documents(teacher.rng, 50),
    ]


LESSONS = {"questions": epoch, "practice": practice}
"""What a course of the recipe may be about."""


def _teachers(material: Material, number: int) -> tuple[_Teacher, ToolTeacher]:
    rng = random.Random(number)  # noqa: S311 - no secret
    return _Teacher(material, rng), ToolTeacher(material.commands, material.tools, rng)


class _Teacher:
    def __init__(self, material: Material, rng: random.Random) -> None:
        self.material, self.rng = material, rng

    def product(self) -> Iterator[Conversation]:
        """Each question about the product. Of most answers the beginning is enough: it occurs so often."""
        for entry in self.material.entries:
            for question in entry.questions:
                short = DECISIVE_TOKENS if self.rng.random() < 0.7 else None
                yield Conversation(
                    [*self._system(), *_turn(self._varied(question), entry.answer)], self._offer(), short
                )

    def general(self) -> Iterator[Conversation]:
        for known in self.material.general:
            short = None if known.whole else GENERAL_TOKENS - 20
            yield Conversation([*self._system(), *_turn(known.prompt, known.answer)], self._offer(), short)

    def longer(self, count: int) -> Iterator[Conversation]:
        """Conversations of several turns, about anything."""
        whole = [known for known in self.material.general if known.whole]
        for _ in range(count):
            messages = self._system()
            for _turn_number in range(self.rng.randint(2, 3)):
                messages += self._exchange(whole, about_product=self.rng.random() < 0.6)
            yield Conversation(messages, self._offer())

    def conversations(self, tools: ToolTeacher, count: int) -> Iterator[Conversation]:
        """As on the chat page: all tools are offered, and what is asked needs one, or none."""
        whole = [known for known in self.material.general if known.whole]
        for _ in range(count):
            messages = self._system() or self._system()
            for _turn_number in range(self.rng.randint(2, 3)):
                kind = self.rng.random()
                messages += tools.exchange() if kind < 0.65 else self._exchange(whole, about_product=kind < 0.85)
            yield Conversation(messages, self.material.tools)

    def _exchange(self, whole: Sequence[General], about_product: bool) -> list[dict[str, Any]]:
        if about_product or not whole:
            entry = self.rng.choice(self.material.entries)
            return _turn(self._varied(self.rng.choice(entry.questions)), entry.answer)
        known = self.rng.choice(whole)
        return _turn(known.prompt, known.answer)

    def _system(self) -> list[dict[str, Any]]:
        if self.rng.random() < 0.8:
            return []
        return [{"role": "system", "content": self.rng.choice(phrases("systems")).format(workspace=WORKSPACE)}]

    def _offer(self) -> list[dict[str, Any]]:
        return offered(self.material.tools, self.rng) if self.rng.random() < WITH_TOOLS else []

    def _varied(self, question: str) -> str:
        """As people write it: hastily, with an introduction, with a slip."""
        rng = self.rng
        if rng.random() < 0.12:
            question = rng.choice(phrases("contexts")).format(question)
        if rng.random() < 0.3:
            question = question[:1].lower() + question[1:]
        if rng.random() < 0.1:
            question = _slipped(question, rng)
        return question.rstrip("?.! ") if rng.random() < 0.3 else question


def _slipped(text: str, rng: random.Random) -> str:
    """Two letters of a word exchanged, or one left out."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not places:
        return text
    place = rng.choice(places)
    word, at = words[place], rng.randint(1, len(words[place]) - 2)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    words[place] = swapped if rng.random() < 0.5 else word[:at] + word[at + 1 :]
    return " ".join(words)


def _turn(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
