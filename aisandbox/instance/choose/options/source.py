"""One place where options were given, and the YAML that most of them hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from aisandbox.instance.problem import Problem

SECTION = "aisandbox"
"""Key of our section in user-data, and the prefix of our keys wherever keys are shared."""
GUARDS = frozenset({"api_key", "chat_password", "allowed_cidrs", "sandbox"})
"""Options that keep others out: a mistake in one of them must not leave the instance open."""
MAX_ENTRIES = 1000
"""Most entries of a value that are searched for guards."""
YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What PyYAML raises: its constructors let out whatever goes wrong in them (`!!bool maybe`, `!!timestamp x`)."""
_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")


@dataclass(frozen=True)
class Source:
    """One place where options were given, and what went wrong while reading it."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    lost: frozenset[str] = frozenset()
    """Guards that it names, and whose values could not be read."""


class TextLoader(yaml.SafeLoader):
    """Keeps scalars as the text that was typed. YAML 1.1 reads 0123 as the number 83, and off as false."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse(text: str, name: str) -> tuple[Any, Problem | None]:
    """The YAML in the text, its scalars as typed; or the problem with it and the line where it is."""
    try:
        return yaml.load(text, TextLoader), None  # noqa: S506 - a SafeLoader
    except YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or "it cannot be parsed"
        fix = "Correct the line: options are written as `key: value`, one on each line, without tabs."
        return None, Problem(reason=f"{line}not YAML: {what}", fix=fix, source=name)


def guards_named(text: str) -> frozenset[str]:
    """Guards that a text which cannot be parsed means to set."""
    return frozenset(re.findall(rf"\b({'|'.join(sorted(GUARDS))})\b", text))


def guards_within(value: Any) -> frozenset[str]:
    """Guards among the keys inside a value, such as of a section that was indented too far."""
    found: set[str] = set()
    waiting, seen = [value], 0
    while waiting and seen < MAX_ENTRIES:
        entry = waiting.pop()
        entries = list(entry) if isinstance(entry, dict | list) else []
        seen += 1 + len(entries)
        found |= GUARDS.intersection(key for key in entries if isinstance(key, str))
        waiting += entry.values() if isinstance(entry, dict) else entries
    return frozenset(found)


def is_section(key: object) -> bool:
    """Whether a key means our section, however its words are joined."""
    return isinstance(key, str) and re.sub(r"[\s_-]", "", key).lower() == SECTION


def section(document: Any, keys: Collection[str]) -> Any:
    """Our section of a document; with options that stand beside it, as if they stood in it."""
    if not isinstance(document, dict):
        return None
    beside = {key: value for key, value in document.items() if key in keys}
    ours = [value for key, value in document.items() if is_section(key) and value is not None]
    if ours and not isinstance(ours[0], dict):
        return ours[0]
    return beside | ours[0] if ours else beside or None


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
    if isinstance(value, dict) and len(value) == 1 and is_section(next(iter(value))):
        (value,) = value.values()
    return mapping(value, name, text)
