"""What a probe is, what it may find, and the table of all of them.

To add one, write a function in a module of this package and put `@probe(…)` on it: `aisandbox doctor` runs every probe
of the table, in the order of registration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from aisandbox.instance.observe.probes.instance import Instance

Severity = Literal["ok", "skipped", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One thing that a probe found. A warning or a failure comes with its fix."""

    severity: Severity
    text: str
    cause: str = ""
    fix: str = ""


def ok(text: str) -> Finding:
    return Finding("ok", text)


def skipped(text: str) -> Finding:
    """For what cannot be looked at here, which is no fault."""
    return Finding("skipped", text)


def warning(text: str, fix: str, cause: str = "") -> Finding:
    return Finding("warning", text, cause, fix)


def failed(text: str, fix: str, cause: str = "") -> Finding:
    return Finding("failed", text, cause, fix)


Look = Callable[[Instance], Iterable[Finding]]


@dataclass(frozen=True)
class Probe:
    """One look at the instance."""

    name: str
    looks_at: str
    look: Look


PROBES: dict[str, Probe] = {}
"""Every probe, in the order in which findings are shown."""


def probe(looks_at: str, name: str = "") -> Callable[[Look], Look]:
    """Put a function into the table, under its own name unless another is given."""

    def register(look: Look) -> Look:
        known_as = name or look.__name__.replace("_", "-")
        assert known_as not in PROBES, known_as
        PROBES[known_as] = Probe(known_as, looks_at, look)
        return look

    return register
