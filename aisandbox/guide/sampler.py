"""Random conversations to train on: what is asked, in which words, and with which tools at hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

from aisandbox.guide.conversation import Conversation
from aisandbox.guide.corpus import Asked, Entry, normalise

TURNS = (1, 1, 1, 2, 2, 3, 4)
HARD_SHARE = 0.3
UNKNOWN_SHARE = 0.15
NOISE_SHARE = 0.01
TOOLS_SHARE = 0.5
TOOL_QUESTION_SHARE = 0.3
REWORDED_SHARE = 0.3

_BEFORE = ("please", "hi,", "hello,", "hey,", "ok,", "so,", "and", "now", "good morning,")
_AFTER = (", please", " please", ", thanks", " now", " again", " exactly", " really", " actually", " here")
_OPENINGS = {
    "How do I ": ("How can I ", "How could I ", "I want to ", "Can I ", "How to "),
    "How can I ": ("How do I ", "How could I "),
    "What is ": ("What's ", "Tell me what is ", "Explain what is "),
    "Where is ": ("Where's ", "Where do I find ", "Tell me where is "),
    "Which ": ("Tell me which ", "What "),
}
_SMALL_WORDS = frozenset(
    ("a", "an", "the", "of", "to", "in", "on", "is", "are", "do", "does", "my", "this", "that", "me", "for")
)


class Sampler:
    """Draws conversations from the corpus; what the model got wrong lately is drawn more often."""

    def __init__(self, entries: Sequence[Entry], seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - no secret
        self._known = [entry for entry in entries if not entry.fallback]
        self._unknown = [entry for entry in entries if entry.fallback]
        self._with_tool = [entry for entry in entries if entry.tool]
        asked = [question for entry in entries for question in (*entry.questions, *entry.held_out)]
        self._taken = frozenset(map(normalise, asked))
        self._words = sorted({word for entry in entries for text in entry.questions for word in text.split()})
        self._hard: dict[tuple[str, str], Asked] = {}

    def conversation(self) -> tuple[Conversation, Asked | None]:
        """The next conversation: one to four questions, often with the tool; and the question if it is one."""
        rng = self._rng
        conversation = Conversation(offered=rng.random() < TOOLS_SHARE)
        turns = rng.choice(TURNS)
        for _ in range(turns):
            entry, question = asked = self._question(conversation.offered)
            conversation.ask(entry, self._reworded(question))
        return conversation, asked if turns == 1 else None

    def feedback(self, asked: Asked, right: bool) -> None:
        """Remember a question that was answered wrongly, until it is answered rightly."""
        key = asked[0].id, asked[1]
        if right:
            self._hard.pop(key, None)
        else:
            self._hard[key] = asked

    def _question(self, tools: bool) -> Asked:
        rng = self._rng
        if self._hard and rng.random() < HARD_SHARE:
            return rng.choice(list(self._hard.values()))
        if rng.random() < NOISE_SHARE:
            return self._unknown[0], " ".join(rng.choices(self._words, k=rng.randint(15, 80)))
        if rng.random() < UNKNOWN_SHARE:
            entry = rng.choice(self._unknown)
        elif tools and rng.random() < TOOL_QUESTION_SHARE:
            entry = rng.choice(self._with_tool)
        else:
            entry = rng.choice(self._known)
        return entry, rng.choice(entry.questions)

    def _reworded(self, question: str) -> str:
        """Sometimes the question with a word of courtesy, with another opening, or without some of its small words."""
        rng = self._rng
        if rng.random() >= REWORDED_SHARE:
            return question
        kind = rng.random()
        if kind < 0.3:
            changed = f"{rng.choice(_BEFORE)} {question}"
        elif kind < 0.5:
            changed = normalise(question) + rng.choice(_AFTER)
        elif kind < 0.75 and (opening := next(filter(question.startswith, _OPENINGS), None)):
            changed = rng.choice(_OPENINGS[opening]) + question.removeprefix(opening)
        else:
            words = [w for w in question.split() if w.lower() not in _SMALL_WORDS or rng.random() < 0.5]
            changed = " ".join(words)
        # What has an answer of its own, or is held out, is not to be made by chance.
        return question if normalise(changed) in self._taken else changed
