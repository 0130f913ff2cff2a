"""Walking folders: listing, finding and globbing, bounded in entries and time. Links are listed, not followed."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox_api.dates import utc
from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import shown
from sandbox_api.file.folder import is_in_progress
from sandbox_api.file.models import (
    FileInfo,
    FindRequest,
    FindResult,
    GlobFile,
    GlobRequest,
    GlobResult,
    ListRequest,
    ListResult,
)
from sandbox_api.file.patterns import Names, Pattern, States

MOST_ENTRIES = 500_000


class Budget:
    """How much a walk may look at. `spent` tells that it ended early."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.entries = 0
        self.spent = False

    def take(self) -> bool:
        self.entries += 1
        if self.entries > MOST_ENTRIES or (self.entries % 256 == 0 and time.monotonic() > self.deadline):
            self.spent = True
        return not self.spent


def iso(seconds: float) -> str:
    return utc(seconds).isoformat()


def entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; files that are just being written are left out."""
    with os.scandir(folder) as found:
        done = (entry for entry in found if not is_in_progress(entry.name, entry.path))
        return sorted(done, key=lambda entry: entry.name)


def require_folder(real: Path) -> None:
    if not stat.S_ISDIR(real.stat().st_mode):
        raise SandboxError("not_a_directory", f"not a directory: {shown(real)}")


def walk(
    folder: str, budget: Budget, enter: Callable[[os.DirEntry[str], tuple[str, ...]], bool], above: tuple[str, ...] = ()
) -> Iterator[tuple[os.DirEntry[str], tuple[str, ...]]]:
    """Everything below a folder, with the parts of its relative path. Folders that cannot be read are left out.

    Args:
        enter: asked about every folder that is no link, after it was given out.
    """
    stack = [(folder, above)]
    while stack:
        path, parts = stack.pop()
        try:
            inside = entries(path)
        except OSError:
            if not parts:
                raise
            continue
        below = []
        for entry in inside:
            if not budget.take():
                return
            place = (*parts, entry.name)
            yield entry, place
            if entry.is_dir(follow_symlinks=False) and enter(entry, place):
                below.append((entry.path, place))
        stack += reversed(below)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:  # gone in the meantime
        return None


def list_folder(real: Path, request: ListRequest, seconds: float) -> ListResult:
    require_folder(real)
    budget, depth = Budget(seconds), (request.max_depth or 10_000) if request.recursive else 1
    endings = tuple("." + ending.removeprefix(".") for ending in request.file_types)

    def wanted(name: str) -> bool:
        return request.show_hidden or not name.startswith(".")

    rows: list[tuple[FileInfo, float]] = []
    for entry, _ in walk(str(real), budget, lambda entry, parts: len(parts) < depth and wanted(entry.name)):
        if not wanted(entry.name) or (found := _stat(entry)) is None:
            continue
        is_folder = _is_folder(entry)
        if endings and (is_folder or not entry.name.endswith(endings)):
            continue
        name = shown(entry.name)
        row = FileInfo(
            name=name,
            path=shown(entry.path),
            is_directory=is_folder,
            size=found.st_size if request.include_size and not is_folder else None,
            modified_time=iso(found.st_mtime),
            permissions=stat.filemode(found.st_mode)[1:] if request.include_permissions else None,
            extension=None if is_folder else os.path.splitext(name)[1] or None,  # noqa: PTH122
            is_symlink=entry.is_symlink(),
        )
        rows.append((row, found.st_size))
    keys: dict[str, Callable[[tuple[FileInfo, float]], object]] = {
        "name": lambda row: (row[0].path,) if request.recursive else (row[0].name,),
        "size": lambda row: (row[1], row[0].path),
        "modified": lambda row: (row[0].modified_time, row[0].path),
        "type": lambda row: (not row[0].is_directory, row[0].extension or "", row[0].path),
    }
    rows.sort(key=keys[request.sort_by], reverse=request.sort_desc)  # type: ignore[arg-type]
    files = [row for row, _ in rows]
    folders = sum(row.is_directory for row in files)
    return ListResult(
        path=request.path,
        files=files[: request.max_results],
        total_count=len(files),
        directory_count=folders,
        file_count=len(files) - folders,
        truncated=budget.spent or len(files) > request.max_results,
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _matching(real: Path, pattern: Pattern, exclude: Names, budget: Budget) -> Iterator[os.DirEntry[str]]:
    # What is left to match below each folder that is still to be walked.
    states: dict[tuple[str, ...], States] = {(): pattern.start}

    def enter(_: os.DirEntry[str], parts: tuple[str, ...]) -> bool:
        return bool(states.get(parts))

    for entry, parts in walk(str(real), budget, enter):
        if exclude.match((entry.name,)) or (exclude.wholes and exclude.match(parts)):
            continue
        after = pattern.step(states[parts[:-1]], entry.name)
        if after and entry.is_dir(follow_symlinks=False):
            states[parts] = after
        if pattern.matched(after):
            yield entry


def find(real: Path, request: FindRequest, seconds: float) -> FindResult:
    require_folder(real)
    pattern = request.glob if "/" in request.glob else f"**/{request.glob}"
    budget = Budget(seconds)
    files: list[str] = []
    for entry in _matching(real, Pattern(pattern, hidden=False), Names([]), budget):
        if len(files) == request.max_results:
            budget.spent = True
            break
        files.append(shown(entry.path))
    return FindResult(path=request.path, files=sorted(files), truncated=budget.spent)


def glob(real: Path, request: GlobRequest, seconds: float) -> GlobResult:
    require_folder(real)
    budget, rows = Budget(seconds), []
    detailed = request.include_metadata or request.sort_by in ("size", "modified")
    pattern = Pattern(request.pattern, hidden=request.include_hidden)
    for entry in _matching(real, pattern, Names(request.exclude), budget):
        is_folder = _is_folder(entry)
        if request.files_only and is_folder:
            continue
        found = _stat(entry) if detailed else None
        row = GlobFile(path=shown(entry.path), name=shown(entry.name), is_directory=is_folder)
        if found and request.include_metadata:
            row.size, row.modified_time = found.st_size, iso(found.st_mtime)
        rows.append((row, found))
    keys: dict[str, Callable[[tuple[GlobFile, os.stat_result | None]], tuple[object, str]]] = {
        "path": lambda row: ("", row[0].path),
        "name": lambda row: (row[0].name, row[0].path),
        "size": lambda row: (row[1].st_size if row[1] else 0, row[0].path),
        "modified": lambda row: (row[1].st_mtime_ns if row[1] else 0, row[0].path),
    }
    rows.sort(key=keys[request.sort_by], reverse=request.sort_desc)
    return GlobResult(
        path=request.path,
        pattern=request.pattern,
        files=[row for row, _ in rows[: request.max_results]],
        total_count=len(rows),
        truncated=budget.spent or len(rows) > request.max_results,
    )
