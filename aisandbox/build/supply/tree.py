"""Reads a root file system that is not trusted: no link leads out of it, and no file is read without a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

LARGEST = 32 * 2**20
"""Bytes that are read of one file; what is longer counts as broken."""
LINKS = 40
"""Links that are followed for one path, as in Linux."""


class Tree:
    """A root file system below a folder of this host. Paths are relative to it, with or without a leading slash."""

    def __init__(self, root: Path) -> None:
        self.root = root

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
