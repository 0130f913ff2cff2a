"""What makes an image large: by folder, by Debian package, by Python environment and by kind of file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from aisandbox.check.model import Subject
from aisandbox.check.tree import Entry, Tree

DEPTH = 3
KINDS: dict[str, re.Pattern[str]] = {
    "Python byte code": re.compile(r"\.pyc$"),
    "shared libraries": re.compile(r"\.so(\.[\d.]+)?$"),
    "static libraries": re.compile(r"\.a$"),
    "tests of Python packages": re.compile(r"/(site|dist)-packages/.*/tests?/"),
    "headers": re.compile(r"\.(h|hpp|cuh)$|^/usr/include/"),
    "translations": re.compile(r"^/usr/share/locale/|\.mo$"),
    "manuals": re.compile(r"^/usr/share/(man|info)/"),
    "documents of packages": re.compile(r"^/usr/share/doc/"),
    "source maps": re.compile(r"\.map$"),
}
ENVIRONMENT = re.compile(r"/envs/([^/]+)/lib/python[\d.]+/site-packages/([^/]+)")


def report(root: Path, lines: int) -> str:
    """Tables of the largest, for people. A file with several names counts with each."""
    tree = Tree(root)
    files = [entry for entry in tree.entries if entry.is_file]
    packages = {
        name: int(record.get("Installed-Size", 0)) * 1024
        for name, record in Subject(tree).packages.items()
        if record.get("Installed-Size", "0").isdigit()
    }
    parts = {
        "folder": _folders(files),
        "Debian package": Counter(packages),
        "environment and package": _environments(files),
        "kind of file": _kinds(files),
    }
    return "\n".join(_lines(sum(entry.size for entry in files), len(files), parts, lines))


def _lines(total: int, count: int, parts: dict[str, Counter[str]], most: int) -> Iterator[str]:
    yield f"{total / 2**20:8.0f} MiB in {count} files"
    for title, sizes in parts.items():
        yield f"\n     MiB  {title}"
        for name, size in sizes.most_common(most):
            yield f"{size / 2**20:8.1f}  {name}"


def _folders(files: Iterable[Entry]) -> Counter[str]:
    """Sizes of folders that are no deeper than three names; the files right in one count for it."""
    sizes: Counter[str] = Counter()
    for entry in files:
        names = entry.path.split("/")[1:-1][:DEPTH]
        sizes["/" + "/".join(names)] += entry.size
    return sizes


def _environments(files: Iterable[Entry]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for entry in files:
        if match := ENVIRONMENT.search(entry.path):
            sizes[f"{match[1]}: {match[2]}"] += entry.size
    return sizes


def _kinds(files: Iterable[Entry]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for entry in files:
        for kind, pattern in KINDS.items():
            if pattern.search(entry.path):
                sizes[kind] += entry.size
                break
    return sizes
