"""The adapter in the repository belongs to the corpus and recipe beside it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from aisandbox.guide import courses
from aisandbox.guide.files import ADAPTER
from aisandbox.manifest import REPOSITORY
from aisandbox.teaching.conversations import Conversation
from aisandbox.teaching.fingerprint import fingerprint

MANIFEST = REPOSITORY / "marketplace.yaml"


def metadata(path: Path) -> dict[str, Any]:
    """What the file says about itself, as safetensors keeps it."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    found: dict[str, Any] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found


def test_it_was_made_from_this_corpus_and_recipe() -> None:
    expected = courses.made_from(MANIFEST, courses.read())
    assert metadata(ADAPTER)["made_from"] == expected, "make guide: corpus, recipe, lessons or template have changed"


def test_it_is_small() -> None:
    assert ADAPTER.stat().st_size <= 6_000_000


def test_every_change_of_a_lesson_is_seen() -> None:
    lesson = Conversation([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    others = [
        Conversation([{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]),
        Conversation(lesson.messages, [{"type": "function"}]),
        Conversation(lesson.messages, answer_tokens=3),
    ]
    digests = [fingerprint(lessons, b"recipe") for lessons in ([lesson], [lesson, lesson], *([x] for x in others))]
    assert len({*digests, fingerprint([lesson], b"other")}) == 6
    assert fingerprint([lesson], b"recipe") == digests[0]
