"""Reads a root file system that is not trusted: no link leads out of it, and no file is read without a bound."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

LARGEST = 32 * 2**20
"""Bytes that are read of one file; what is longer counts as broken."""
LINKS = 40
"""Links that are followed for one path, as in Linux."""
MAGIC = re.compile(r"[*?\[]")


class Entry(NamedTuple):
    """A file, folder, link or anything else of the tree, itself: links are not followed."""

    path: str
    """In the tree, with a leading slash."""
    mode: int
    uid: int
    gid: int
    size: int

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Tree:
    """A root file system below a folder of this host. Paths are relative to it, with or without a leading slash."""

    def __init__(self, root: Path, outside: Collection[str] = ()) -> None:
        self.root = root
        self.outside = frozenset(outside)
        """Paths that are not looked at, with all below them: what is mounted there is no part of the tree."""
        self.unreadable: list[str] = []
        """Folders that could not be listed, after `entries` was asked for."""

    def find(self, path: str) -> Path | None:
        """Where the path is on this host, its links followed inside the tree; None when it leads nowhere."""
        waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        found: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                found = found[:-1]
                continue
            here = self.root.joinpath(*found, part)
            try:
                kind = here.lstat().st_mode
                target = str(here.readlink()) if stat.S_ISLNK(kind) else None
            except (OSError, ValueError):
                return None
            if target is None:
                found.append(part)
                continue
            links += 1
            if links > LINKS:
                return None
            if target.startswith("/"):
                found = []
            waiting.extend(step for step in reversed(target.split("/")) if step not in ("", "."))
        return self.root.joinpath(*found)

    def read(self, path: str, limit: int = LARGEST) -> bytes | None:
        """A regular file's content; None when there is none, it cannot be read or is longer than `limit` bytes."""
        found = self.find(path)
        try:
            if found is None or not stat.S_ISREG(found.lstat().st_mode):
                return None
            with found.open("rb") as handle:
                content = handle.read(limit + 1)
        except OSError:
            return None
        return content if len(content) <= limit else None

    def text(self, path: str, limit: int = LARGEST) -> str | None:
        """A text file's content; bytes that are no UTF-8 are read as Latin-1, which older packages use."""
        content = self.read(path, limit)
        if content is None:
            return None
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content.decode("latin-1")

    def lines(self, path: str) -> list[str]:
        """A configuration file's lines, without comments and empty ones; none when it cannot be read."""
        stripped = (line.strip() for line in (self.text(path) or "").splitlines())
        return [line for line in stripped if line and not line.startswith("#")]

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; none when there is no such folder."""
        found = self.find(path)
        try:
            return sorted(entry.name for entry in os.scandir(found)) if found else []
        except OSError:
            return []

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Like `os.walk` below a folder, sorted, links not followed; folders come as paths in the tree."""
        found = self.find(path)
        if not found:
            return
        for folder, folders, files in os.walk(found):
            folders.sort()
            yield os.path.relpath(folder, self.root), folders, sorted(files)

    def entry(self, path: str) -> Entry | None:
        """The entry of that path, links followed up to its folder, but not itself; None when there is none."""
        if self.is_outside(path):
            return None
        folder, _, name = path.rstrip("/").rpartition("/")
        found = self.find(folder)
        try:
            status = found and (found / name).lstat()
        except (OSError, ValueError):
            return None
        return Entry(path, status.st_mode, status.st_uid, status.st_gid, status.st_size) if status else None

    def is_outside(self, path: str) -> bool:
        return any(path == mount or path.startswith(f"{mount}/") for mount in self.outside)

    def glob(self, *patterns: str) -> Iterator[Entry]:
        """Entries whose path matches; `*` also matches hidden names, and no slash."""
        for pattern in patterns:
            yield from self._glob("", [part for part in pattern.split("/") if part])

    def _glob(self, folder: str, parts: list[str]) -> Iterator[Entry]:
        part, *rest = parts
        names = [name for name in self.names(folder) if fnmatchcase(name, part)] if MAGIC.search(part) else [part]
        for name in names:
            path = f"{folder}/{name}"
            if rest:
                yield from self._glob(path, rest)
            elif entry := self.entry(path):
                yield entry

    def files(self, *folders: str) -> Iterator[Entry]:
        """Regular files below these folders, at any depth."""
        inside = tuple(folder.rstrip("/") + "/" for folder in folders)
        return (entry for entry in self.entries if entry.is_file and entry.path.startswith(inside))

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Everything on the tree's own file system, in the order of the paths; what is mounted in it is left out."""
        found: list[Entry] = []
        device = self.root.stat().st_dev
        folders = [str(self.root)]
        prefix = len(str(self.root).rstrip("/"))
        while folders:
            folder = folders.pop()
            try:
                inside = list(os.scandir(folder))
            except OSError:
                self.unreadable.append(folder[prefix:] or "/")
                continue
            for item in inside:
                try:
                    status = item.stat(follow_symlinks=False)
                except OSError:  # gone meanwhile
                    continue
                if item.path[prefix:] in self.outside:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    if status.st_dev != device:
                        continue
                    folders.append(item.path)
                found.append(Entry(item.path[prefix:], status.st_mode, status.st_uid, status.st_gid, status.st_size))
        return tuple(sorted(found))


def mounts() -> list[str]:
    """Where something is mounted on this machine, the boot partitions left out: they go with the disk."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    found = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point) for point in points)
    return [point for point in found if point != "/" and not f"{point}/".startswith("/boot/")]
