"""What an adapter was made from: a digest of lessons, recipe and template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from aisandbox.teaching.conversations import Conversation


def fingerprint(lessons: Iterable[Conversation], *further: bytes) -> str:
    """A digest of the lessons in their order, and of whatever else the adapter depends on."""
    digest = hashlib.sha256()
    for lesson in lessons:
        digest.update(json.dumps([lesson.messages, lesson.tools, lesson.answer_tokens]).encode() + b"\n")
    for content in further:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
