"""One place where options were given, and the YAML that most of them hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from aisandbox.instance.problem import Problem

SECTION = "aisandbox"
"""Key of our section in user-data, and the prefix of our keys wherever keys are shared."""
GUARDS = frozenset({"api_key", "chat_password", "allowed_cidrs"})
"""Options that keep others out: a mistake in one of them must not leave the instance open."""


@dataclass(frozen=True)
class Source:
    """One place where options were given, and what went wrong while reading it."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    lost: frozenset[str] = frozenset()
    """Guards that it names, and whose values could not be read."""


def parse(text: str, name: str) -> tuple[Any, Problem | None]:
    """The YAML in the text, or the problem with it and the line where it is."""
    try:
        return yaml.safe_load(text), None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2026-99-99 is a ValueError
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or "it cannot be parsed"
        fix = "Correct the line: options are written as `key: value`, one on each line, without tabs."
        return None, Problem(reason=f"{line}not YAML: {what}", fix=fix, source=name)


def guards_named(text: str) -> frozenset[str]:
    """Guards that a text which cannot be parsed means to set."""
    return frozenset(re.findall(rf"\b({'|'.join(sorted(GUARDS))})\b", text))


def mapping(value: Any, name: str, text: str = "") -> Source:
    """The source that a parsed value makes, which stood in that text."""
    if value is None:
        return Source(name)
    if isinstance(value, dict):
        return Source(name, value)
    reason = f"holds a {type(value).__name__}, not `key: value` lines"
    fault = Problem(reason=reason, fix="Write `key: value` lines.", source=name)
    return Source(name, problems=(fault,), lost=guards_named(text))


def read_text(text: str, name: str) -> Source:
    """The source that a text of `key: value` lines makes, with or without our section around them."""
    value, fault = parse(text, name)
    if fault:
        return Source(name, problems=(fault,), lost=guards_named(text))
    if isinstance(value, dict) and set(value) == {SECTION}:
        value = value[SECTION]
    return mapping(value, name, text)
