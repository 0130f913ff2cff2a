"""Checked changes of the user's options file."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from aisandbox import manifest as manifests
from aisandbox.instance import files
from aisandbox.instance.choose import options
from aisandbox.instance.choose.options import InvalidOptionError, Source
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest

HEADER = "# Your choices, one `option: value` on each line. To apply a change: sudo aisandbox configure\n"


class InvalidTextError(Exception):
    """An edited file that holds mistakes, each with its line and what would be right."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class ConflictError(Exception):
    """The file has changed since the change was made from it."""


@dataclass(frozen=True)
class Edit:
    """A checked change of the options file."""

    text: str
    diff: str
    """What changes, line by line, without secrets; empty when nothing does."""
    base: str
    """The file as it was."""
    dropped: tuple[str, ...] = ()
    """Comments that get lost."""


def current(places: Places) -> str:
    """The options file as it is; empty when there is none."""
    try:
        return places.options.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def edit(places: Places, manifest: Manifest, values: Mapping[str, str], unset: tuple[str, ...] = ()) -> Edit:
    """Check a change of the options file, without making it.

    Raises:
        InvalidOptionError: an option is unknown or its value breaks its rules, or the file cannot be understood.
    """
    base = current(places)
    own = options.read_text(base, str(places.options))
    if own.problems:
        raise InvalidOptionError(str(own.problems[0]), "Correct the file: sudo aisandbox configure --edit")
    after: dict[str, Any] = dict(own.values)
    for key in (*values, *unset):
        if key not in manifest.options_by_key:
            raise InvalidOptionError(f"There is no option {key}.", options.advice(key, manifest))
    unavailable = options.unavailable(places)
    for key, raw in values.items():
        option = manifest.options_by_key[key]
        if key in unavailable and raw.strip():
            raise InvalidOptionError(f"{key} {unavailable[key].reason}.", unavailable[key].fix)
        try:
            after[key] = options.check(option, raw)
        except InvalidOptionError as invalid:
            raise InvalidOptionError(f"{key}: {options.shown(option, raw)!r} {invalid.reason}.", invalid.fix) from None
    for key in unset:
        after.pop(key, None)
        # An empty entry hides what the deployment chose, or meant to choose.
        elsewhere = options.decide(_others(places, manifest), manifest)
        if key in elsewhere.origins or key in elsewhere.choice.closed:
            after[key] = None
    comments = tuple(line for line in re.findall(r"^\s*#.*$", base, re.MULTILINE) if line not in HEADER)
    return Edit(HEADER + _dump(after), _diff(own.values, after, manifest), base, comments)


def checked(places: Places, manifest: Manifest, text: str, base: str) -> Edit:
    """Check the whole text of an options file that was made from the file as it was.

    Raises:
        InvalidTextError: there are mistakes in it.
    """
    own = options.read_text(text, str(places.options))
    decision = options.decide([own], manifest, options.unavailable(places))
    problems = [problem for problem in decision.problems if problem.source == own.name]
    if problems:
        raise InvalidTextError(
            tuple(
                f"{_where(text, problem.option)}{replace(problem, source=None)}. {problem.fix}" for problem in problems
            )
        )
    before = options.read_text(base, own.name)
    return Edit(text, _diff(before.values, own.values, manifest), base)


def save(places: Places, change: Edit) -> bool:
    """Make a checked change. Returns whether it is one.

    Raises:
        ConflictError: somebody else has changed the file meanwhile.
    """
    if current(places) != change.base:
        raise ConflictError(f"{places.options} has been changed by somebody else meanwhile.")
    return change.text != change.base and files.write(places.options, change.text, 0o600)


def draft(places: Places, text: str) -> Path:
    """A file to edit, or to keep, such a text in: for root only, and in memory."""
    descriptor, name = tempfile.mkstemp(prefix="options-", suffix=".yaml", dir=places.run)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(name)


@contextmanager
def rehearsal(places: Places) -> Iterator[Places]:
    """The same instance, where changes go to copies that are deleted afterwards. They never touch the disk."""
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=places.run) as folder:
        stage = replace(places, etc=Path(folder, "etc"), data=Path(folder, "data"), run=Path(folder, "run"))
        for origin, copy in (
            (places.etc, stage.etc),
            *([(places.options.parent, stage.options.parent)] if places.container else []),
            (places.secrets, stage.secrets),
            (places.status("model").parent, stage.status("model").parent),
            (places.resolved, stage.resolved),
        ):
            copy.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                shutil.copytree(origin, copy)
            elif origin.exists():
                shutil.copy2(origin, copy)
        yield stage


def _others(places: Places, manifest: Manifest) -> list[Source]:
    own = {str(places.options), str(places.last_good_options)}
    return [source for source in options.sources(places, manifest) if source.name not in own]


def _where(text: str, key: str | None) -> str:
    if not key:
        return ""
    places = ((key,), (options.SECTION, key))  # what is not there is said to be on the first line
    return f"line {max(manifests.line_of(text, place) for place in places)}: "


def _dump(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True) if values else ""


def _diff(before: Mapping[str, Any], after: Mapping[str, Any], manifest: Manifest) -> str:
    # A key that is no option may be a misspelt secret.
    plain = {option.key for option in manifest.options if option.type != "secret"}
    lines = []
    for key in dict.fromkeys((*before, *after)):
        old, new = (_dump({key: values[key]}) if key in values else "" for values in (before, after))
        if old != new:
            lines += [
                f"{sign}{text.rstrip()}" if key in plain or values[key] is None else f"{sign}{key}: {options.MASK}"
                for sign, text, values in (("-", old, before), ("+", new, after))
                if text
            ]
    return "\n".join(lines)
