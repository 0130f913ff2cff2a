"""What differs between two images: packages, and every file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from aisandbox.builder.errors import BuildError
from aisandbox.builder.supply import documents
from aisandbox.builder.supply.inventory import Inventory, clean

RECORD = "manifest.json"
LARGEST = 64 * 2**20

Versions = Mapping[str, str]
"""Versions by a package's name with its kind, such as `Python in vllm: torch`."""


@dataclass(frozen=True)
class Difference:
    """What there is to say about two lists of packages."""

    added: Versions
    removed: Versions
    changed: Mapping[str, tuple[str, str]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def to_markdown(self) -> str:
        """For release notes."""
        if not self:
            return "The packages are the same.\n"
        lines = [f"- {name}: {old} → {new}" for name, (old, new) in self.changed.items()]
        lines += [f"- {name}: added, {version}" for name, version in self.added.items()]
        lines += [f"- {name}: removed, was {version}" for name, version in self.removed.items()]
        return "\n".join(lines) + "\n"


def difference(before: Versions, after: Versions) -> Difference:
    """What has to be done to the first for the second."""
    return Difference(
        added={name: after[name] for name in sorted(after.keys() - before.keys())},
        removed={name: before[name] for name in sorted(before.keys() - after.keys())},
        changed={
            name: (before[name], after[name])
            for name in sorted(before.keys() & after.keys())
            if before[name] != after[name]
        },
    )


def compare(before: Inventory, after: Inventory) -> Difference:
    """How the packages of two inventories differ, by name and version."""
    return difference(versions(documents.packages(before)), versions(documents.packages(after)))


def versions(packages: Mapping[str, Any]) -> Versions:
    """The packages in an image's manifest, one by one.

    Raises:
        ValueError: they are not of that form.
    """
    found: dict[str, str] = {}
    for kind, entries in packages.items():
        title = {"debian": "Debian", "python": "Python", "npm": "npm"}.get(kind, clean(kind))
        for name, entry in dict(entries).items():
            if isinstance(entry, dict):
                found.update({f"{title} in {clean(name)}: {clean(k)}": clean(v) for k, v in entry.items()})
            else:
                found[f"{title}: {clean(name)}"] = (
                    ", ".join(map(clean, entry)) if isinstance(entry, list) else clean(entry)
                )
    return found


def manifests(before: Path, after: Path) -> str:
    """What changed from one image to the next by their manifests, as Markdown.

    Args:
        before, after: manifest.json of an image, or the folder that holds it.

    Raises:
        BuildError: one cannot be read, or is none.
    """
    old, new = _manifest(before), _manifest(after)
    lines = [f"# {_title(old)} → {_title(new)}", ""]
    if old["image"] == new["image"]:
        lines += ["Both are the same image.", ""]
    try:
        found = difference(versions(old["packages"]), versions(new["packages"]))
        locks = difference(dict(old["locks"]), dict(new["locks"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BuildError(f"{before} or {after} is no manifest of an image", "make image writes it") from error
    total = len(found.changed), len(found.added), len(found.removed)
    lines += ["## Packages", "", "{} changed, {} added, {} removed.".format(*total), "", found.to_markdown()]
    lines += ["## Locks", ""]
    names = sorted({*locks.changed, *locks.added, *locks.removed})
    lines += [f"- locks/{clean(name)}" for name in names] or ["They are the same."]
    return "\n".join(lines).rstrip() + "\n"


def _manifest(path: Path) -> dict[str, Any]:
    file = path / RECORD if path.is_dir() else path
    try:
        with file.open("rb") as handle:
            content = json.loads(handle.read(LARGEST))
    except OSError as error:
        raise BuildError(f"{file} cannot be read: {error.strerror}", f"name an image's {RECORD}") from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{file} is no manifest of an image: no JSON", f"name an image's {RECORD}") from error
    if not isinstance(content, dict) or not {"image", "packages", "version", "flavour"} <= content.keys():
        raise BuildError(f"{file} is no manifest of an image", f"name an image's {RECORD}; make image writes it")
    return content


def _title(record: Mapping[str, Any]) -> str:
    return f"{clean(record['version'])} {clean(record['flavour'])} ({clean(record['image'])})"


@dataclass(frozen=True)
class Entry:
    """One file of a root file system, but for its times."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str
    """SHA-256 of a regular file, target of a link, numbers of a device."""


@dataclass(frozen=True)
class Rule:
    """Files that may differ between two bakes of the same input, and why."""

    pattern: str
    why: str
    timeless: Callable[[bytes], bytes] | None = None
    """A regular file's content without its times, which must be the same; None: nothing must."""


def _code(content: bytes) -> bytes:
    # Four bytes each: magic number, flags, time of the source, its size; then the code (PEP 552).
    return content[:8] + content[12:]


def _accounts(content: bytes) -> bytes:
    # The third field is the day of the last change of the password; empty and 0 mean something else, see shadow(5).
    return re.sub(rb"(?m)^([^:\n]*:[^:\n]*):[1-9][0-9]*:", rb"\1:day:", content)


ALLOWED = (
    Rule("*.pyc", "byte-code tells when its source was installed", _code),
    Rule("/etc/shadow*", "accounts tell the day they were made on", _accounts),
    Rule("/etc/ssh/ssh_host_*_key*", "host keys, which the role sysprep removes"),
    Rule("/var/lib/dbus/machine-id", "the machine's id, which the role sysprep removes"),
    Rule("/var/log/*", "logs, which the role sysprep empties"),
    Rule("/var/cache/apt/*", "apt's caches, which the role sysprep empties"),
    Rule("/var/lib/apt/lists/partial", "apt gives its folder to its own user when it downloads"),
    Rule("/var/cache/ldconfig/aux-cache", "ldconfig's cache tells times of libraries"),
    Rule("/var/cache/fontconfig/*.cache-*", "fontconfig's cache tells times of folders"),
    Rule("/boot/initrd.img-*", "the initial RAM disk tells times of the files in it"),
)
"""All that may differ between two bakes of one layer. What the role sysprep takes away, no image has."""


def files(root: Path) -> dict[str, Entry]:
    """Every file below a folder, by its path."""
    return dict(_files(root, root))


def _files(root: Path, folder: Path) -> Iterator[tuple[str, Entry]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        facts = entry.stat(follow_symlinks=False)
        path = Path(entry.path)
        owner = (facts.st_uid, facts.st_gid)
        content = ""
        if stat.S_ISREG(facts.st_mode):
            with path.open("rb") as handle:
                content = hashlib.file_digest(handle, "sha256").hexdigest()
        elif stat.S_ISLNK(facts.st_mode):
            content = str(path.readlink())
        elif stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode):
            content = str(facts.st_rdev)
        kind = stat.filemode(facts.st_mode)[0]
        yield f"/{path.relative_to(root)}", Entry(kind, stat.S_IMODE(facts.st_mode), owner, content)
        if kind == "d":
            yield from _files(root, path)


@dataclass(frozen=True)
class Contents:
    """How the files of two folders differ: paths by the reason that is known, or without one."""

    same: int
    explained: Mapping[str, list[str]]
    unexplained: list[str]


def compare_files(before: Path, after: Path, allowed: tuple[Rule, ...] = ALLOWED) -> Contents:
    """Compare every file of two folders by kind, mode, owner and content; times do not count."""
    old, new = files(before), files(after)
    explained: dict[str, list[str]] = {}
    unexplained = []
    paths = sorted(old.keys() | new.keys())
    differing = [path for path in paths if old.get(path) != new.get(path)]
    for path in differing:
        rule = next((rule for rule in allowed if fnmatchcase(path, rule.pattern)), None)
        if rule and (not rule.timeless or _same(rule.timeless, before, after, path, old.get(path), new.get(path))):
            explained.setdefault(rule.why, []).append(path)
        else:
            unexplained.append(path)
    return Contents(len(paths) - len(differing), explained, unexplained)


def _same(
    timeless: Callable[[bytes], bytes], before: Path, after: Path, path: str, old: Entry | None, new: Entry | None
) -> bool:
    if not old or not new or (old.kind, old.mode, old.owner) != (new.kind, new.mode, new.owner) or old.kind != "-":
        return False
    first, second = ((folder / path.lstrip("/")).read_bytes() for folder in (before, after))
    return timeless(first) == timeless(second)
