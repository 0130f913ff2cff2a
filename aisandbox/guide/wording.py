"""Words and turns of phrase that lessons are made of, from corpus/wording.yaml."""

from __future__ import annotations

import functools
from typing import Any

import yaml

from aisandbox.guide.corpus import CORPUS

WORKSPACE = "/home/sandbox/workspace"


@functools.cache
def phrases(kind: str) -> tuple[Any, ...]:
    """All phrases of a kind."""
    return tuple(_read()[kind])


@functools.cache
def _read() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = yaml.safe_load((CORPUS / "wording.yaml").read_text(encoding="utf-8"))
    return found
