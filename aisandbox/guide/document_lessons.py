"""Lessons on documents: the chat page shows parts of them before the question; the answer is in one, or in none."""

from __future__ import annotations

import random
from collections.abc import Iterator

from aisandbox.auxiliary.prompt import TEMPLATE
from aisandbox.guide.wording import phrases
from aisandbox.teaching.conversations import Conversation

UNKNOWN = "The documents do not say that."


def documents(rng: random.Random, count: int) -> Iterator[Conversation]:
    """Questions about parts of made-up documents."""
    words = phrases("words")
    for _ in range(count):
        facts = [_fact(rng) for _ in range(rng.randint(4, 12))]
        asked, rest = facts[0], facts[1:]
        known = rng.random() < 0.85
        told = [sentence for sentence, _ in (facts if known else rest)]
        rng.shuffle(told)
        size = rng.randint(2, 5)
        parts = [told[start : start + size] for start in range(0, len(told), size)]
        names = [f"{rng.choice(words)}.{rng.choice(('pdf', 'docx', 'txt', 'md'))}" for _ in parts]
        context = "\n".join(
            f'<source id="{number}" name="{name}">{" ".join(part)}</source>'
            for number, (name, part) in enumerate(zip(names, parts, strict=True), start=1)
        )
        where = next((number for number, part in enumerate(parts, start=1) if asked[0] in part), None)
        answer = f"{asked[0].removesuffix('.')} [{where}]." if where else UNKNOWN
        question = f"{TEMPLATE.replace('{{CONTEXT}}', context)}\n{asked[1]}"
        yield Conversation([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def _fact(rng: random.Random) -> tuple[str, str]:
    """A sentence and the question that it answers."""
    fact, words = rng.choice(phrases("facts")), phrases("words")
    values = {
        "name": " ".join(rng.sample(phrases("names"), 2)),
        "town": rng.choice(phrases("towns")),
        "thing": rng.choice(words),
        "other": rng.choice(words),
        "n": str(rng.randint(2, 900)),
        "year": str(rng.randint(1950, 2026)),
    }
    return fact["says"].format(**values), rng.choice(fact["asked"]).format(**values)
