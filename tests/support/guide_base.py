"""What the guide's base answers to the general prompts. It takes minutes and never changes, so it is recorded.

`python -m tests.support.guide_base` records it anew, after a change of the prompts or of the base.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from aisandbox.manifest import REPOSITORY
from tests.support import examination, teaching
from tests.support.examination import Asked, Said

FILE = examination.DATA / "base_answers.json"
MADE_FROM = ("locks/guide.txt", "aisandbox/guide/base.py", "aisandbox/guide/chat_template.jinja")


def answers(asked: Sequence[Asked]) -> list[Said]:
    """Recorded answers; tests/unit/test_guide_base.py says when they are out of date."""
    told = json.loads(FILE.read_text())["answers"]
    return [Said(told[question.messages[-1]["content"]]) for question in asked]


def digest() -> str:
    """Of everything that decides the answers."""
    made = hashlib.sha256(json.dumps(_questions()).encode())
    for name in MADE_FROM:
        made.update((REPOSITORY / name).read_bytes())
    return made.hexdigest()


def _questions() -> list[tuple[str, int]]:
    asked: list[Asked] = []

    def keep(questions: Sequence[Asked]) -> list[Said]:
        asked.extend(questions)
        return [Said("")] * len(questions)

    examination.general(keep, "questions")
    return [(question.messages[-1]["content"], question.tokens) for question in asked]


def main() -> None:
    """Ask the base, held in memory on this host."""
    said = json.loads(teaching.run("tests.support.base_answers", given=json.dumps(_questions())))
    told = dict(zip((question for question, _ in _questions()), said, strict=True))
    FILE.write_text(json.dumps({"made_from": digest(), "answers": told}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
