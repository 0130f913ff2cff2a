"""The source that an image is baked from, as git knows it, and the time that its documents carry."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aisandbox import manifest
from aisandbox.builder.errors import BuildError

EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True)
class Source:
    """A checkout. `commit` is None where git knows of none."""

    commit: str | None
    changed: tuple[str, ...]
    """Files that differ from the commit, or are not in it."""
    committed: int | None
    """Seconds since 1970."""

    @property
    def dirty(self) -> bool:
        return bool(self.changed)


def read(folder: Path = manifest.REPOSITORY) -> Source:
    """What git says of a checkout."""
    commit = _git(folder, "rev-parse", "HEAD").strip()
    if not commit:
        return Source(None, (), None)
    listed = _git(folder, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
    changed = tuple(sorted(entry[3:] for entry in listed.split("\0") if entry))
    seconds = _git(folder, "show", "--no-patch", "--format=%ct", "HEAD").strip()
    return Source(commit, changed, int(seconds) if seconds.isdigit() else None)


def _git(folder: Path, *arguments: str) -> str:
    # Nothing is written, so that a build by root leaves no index of root's in a user's checkout.
    command = ["git", "-c", f"safe.directory={folder}", "--no-optional-locks", *arguments]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def created(source: Source, environment: Mapping[str, str] = os.environ) -> datetime:
    """The time in documents: `SOURCE_DATE_EPOCH`, else the commit's, so that the same source gives the same bytes.

    Raises:
        BuildError: the variable is not a number of seconds.
    """
    said = environment.get(EPOCH_VARIABLE)
    try:
        return datetime.fromtimestamp(int(said) if said else source.committed or 0, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise BuildError(
            f"{EPOCH_VARIABLE}={said!r} is not a number of seconds since 1970", f"unset {EPOCH_VARIABLE}"
        ) from error
