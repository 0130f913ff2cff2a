"""Checks the written files of a listing: the platforms' limits, and that every file is what its name says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from aisandbox.builder.listing import formats
from aisandbox.builder.listing.limits import LIMITS, Limit, Place
from aisandbox.manifest import line_of


@dataclass(frozen=True)
class Finding:
    """A file that breaks a rule. `place` is where in marketplace.yaml its text comes from, if from there."""

    file: str
    message: str
    place: Place = ()

    def told(self, source: Path) -> str:
        """The finding in words, with the line of the manifest."""
        if not self.place:
            return f"{self.file}: {self.message}"
        line = line_of(source.read_text(encoding="utf-8"), self.place)
        return f"{source.name}, line {line} ({'.'.join(map(str, self.place))}): {self.file}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What the linter found, and which checks could not be done for want of a tool."""

    findings: tuple[Finding, ...]
    files: int
    skipped: tuple[str, ...]


def lint(folder: Path, targets: Iterable[str]) -> Report:
    """Check the files of the targets, each in the folder of its name."""
    findings: list[Finding] = []
    count = 0
    for target in targets:
        paths = sorted(path for path in (folder / target).rglob("*") if path.is_file())
        count += len(paths)
        for path in paths:
            findings += _file(folder, target, path)
        found = formats.together(folder / target)
        findings += [Finding(f"{target}/{name}", message) for name, message in found]
    return Report(tuple(findings), count, formats.missing_tools())


def _file(folder: Path, target: str, path: Path) -> Iterator[Finding]:
    name, file = path.relative_to(folder / target).as_posix(), path.relative_to(folder).as_posix()
    try:
        text = path.read_text(encoding="utf-8")
        content = formats.parsed(name, text)
    except ValueError as error:
        yield Finding(file, f"cannot be read: {error}")
        return
    yield from (Finding(file, message) for message in formats.faults(path, name, text))
    for limit in LIMITS:
        if fnmatch(target, limit.target) and limit.file == name:
            yield from _limit(limit, file, text, content)


def _limit(limit: Limit, file: str, text: str, content: Any) -> Iterator[Finding]:
    values = list(_values(content, limit.pointer.split("/")[1:])) if limit.pointer else [((), text.strip())]
    if not values:
        yield Finding(file, f"{limit.pointer} is missing")
    for numbers, value in values:
        breach = limit.rule.breach(str(value))
        if breach:
            rule = f"{limit.rule.words} are allowed, {breach} ({limit.source})"
            yield Finding(file, f"{limit.pointer or 'text'}: {rule}", _place(limit, numbers))


def _place(limit: Limit, numbers: tuple[int | str, ...]) -> Place:
    left = iter(numbers)
    return tuple(next(left, step) if step == "*" else step for step in limit.place)


def _values(content: Any, steps: list[str]) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    """What the steps lead to, each with the numbers and names that the stars stood for."""
    if not steps:
        yield (), content
        return
    step, rest = steps[0], steps[1:]
    if step != "*":
        if isinstance(content, dict) and step in content:
            yield from _values(content[step], rest)
        return
    entries: Iterable[tuple[int | str, Any]] = content.items() if isinstance(content, dict) else enumerate(content)
    for number, entry in entries:
        yield from (((number, *numbers), value) for numbers, value in _values(entry, rest))
