"""The layers of the image: what they are made of, the keys that name them, and the store that keeps them.

A layer is a directory: the root file system itself for the first, the upper directory of an overlay for the others.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from aisandbox.manifest import REPOSITORY

PLAYBOOK = REPOSITORY / "ansible" / "image.yml"
DEFINITIONS = REPOSITORY / "ansible" / "layers.yml"
TOP = "appliance"
# Not part of what a role installs. No role has dependencies, which `meta` would name.
IGNORED = {"molecule", "meta", "README.md", "__pycache__"}
KEPT_PER_LAYER = 2


def cache_directory() -> Path:
    """Where layers, wheels and packages are kept between bakes: `$AISANDBOX_CACHE`, else the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aisandbox"
    return Path(os.environ.get("AISANDBOX_CACHE") or default)


def _digest_tree(path: Path) -> Iterator[str]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: named by {DEFINITIONS.name}, but not there")
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        if file.is_file() and not IGNORED.intersection(file.relative_to(REPOSITORY).parts):
            mode = "x" if os.access(file, os.X_OK) else "-"
            yield f"{file.relative_to(REPOSITORY)} {mode} {hashlib.sha256(file.read_bytes()).hexdigest()}"


@dataclass(frozen=True)
class Layer:
    """One layer of one flavour. `seconds` is what it is expected to take to bake."""

    name: str
    flavour: str
    parents: tuple[Layer, ...]
    inputs: tuple[str, ...]
    seconds: float
    packages: tuple[str, ...] = ()
    """Debian packages that the lowest layer is bootstrapped with."""

    @cached_property
    def key(self) -> str:
        """Names the layer's content: a digest of its parents' keys and of every input that it reads."""
        parts = [self.name, self.flavour, *(parent.key for parent in self.parents), *self.packages, *self.inputs]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def id(self) -> str:
        return f"{self.name}-{self.key}"

    @property
    def stack(self) -> tuple[Layer, ...]:
        """This layer and all below it, lowest first, each once."""
        return (*stack(self.parents), self)


def stack(tops: Iterable[Layer]) -> tuple[Layer, ...]:
    """These layers and all below them, lowest first, each once."""
    seen: dict[str, Layer] = {}
    for top in tops:
        for layer in top.stack:
            seen.setdefault(layer.name, layer)
    return tuple(seen.values())


def load(flavour: str) -> dict[str, Layer]:
    """All layers of a flavour, lowest first."""
    definitions: dict[str, dict[str, Any]] = yaml.safe_load(DEFINITIONS.read_text())["layers"]
    manifest: dict[str, Any] = yaml.safe_load((REPOSITORY / "marketplace.yaml").read_text())
    play = yaml.safe_load(PLAYBOOK.read_text())[0]
    layers: dict[str, Layer] = {}
    for name, definition in definitions.items():
        roles = [f"roles/{entry['role']}" for entry in play["roles"] if name in entry["tags"]]
        named = [*definition.get("files", []), *definition.get(flavour, [])]
        files = [file.format(flavour=flavour) for file in named]
        others = tuple(f"{folder}/" for folder in definition.get("except", []))
        inputs = [line for path in (*roles, *files) for line in _digest_tree(REPOSITORY / path)]
        inputs = [line for line in inputs if not line.startswith(others)]
        inputs += [json.dumps(manifest[section], sort_keys=True) for section in definition.get("manifest", [])]
        layers[name] = Layer(
            name=name,
            flavour=flavour,
            parents=tuple(layers[parent] for parent in definition.get("parents", [])),
            inputs=tuple(inputs),
            seconds=float(definition["seconds"]),
            packages=tuple(definition.get("packages", [])),
        )
    return layers


class Store:
    """Baked layers in the cache directory. A layer appears whole, by a rename, or not at all."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or cache_directory()) / "layers"

    def path(self, layer: Layer) -> Path:
        return self.root / layer.id

    def rootfs(self, layer: Layer) -> Path:
        """The directory that an overlay stacks."""
        return self.path(layer) / "root"

    def has(self, layer: Layer) -> bool:
        return (self.path(layer) / "layer.json").exists()

    def info(self, layer: Layer) -> dict[str, Any]:
        """Facts recorded when the layer was baked: `seconds`, `name`, `key`."""
        info: dict[str, Any] = json.loads((self.path(layer) / "layer.json").read_text())
        return info

    def lower_directories(self, *tops: Layer) -> str:
        """The `lowerdir` of an overlay that shows these layers and all below them (uppermost first)."""
        return ":".join(str(self.rootfs(layer)) for layer in reversed(stack(tops)))

    @contextmanager
    def lock(self, layer: Layer) -> Iterator[None]:
        """Held while a layer is baked, so that two bakes on one host do not do the same work."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / f".lock-{layer.id}", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def create(self, layer: Layer) -> Iterator[Path]:
        """A working directory that becomes the layer when the block ends without an error.

        What an interrupted bake left behind is removed first. The block fills `root/`; it may use any other name for
        its own purposes, which are dropped.
        """
        partial = self.root / f".partial-{layer.id}"
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "root").mkdir(parents=True)
        yield partial
        for entry in partial.iterdir():
            if entry.is_dir() and entry.name != "root":
                shutil.rmtree(entry, ignore_errors=True)
        shutil.rmtree(self.path(layer), ignore_errors=True)
        partial.rename(self.path(layer))

    def used(self, layer: Layer) -> None:
        """Mark a layer as used now; the least recently used ones go first."""
        os.utime(self.path(layer))

    def in_use(self) -> set[str]:
        """Ids of layers that are mounted right now, in whatever mount namespace: those under running machines."""
        found: set[str] = set()
        for mounts in Path("/proc").glob("[0-9]*/mounts"):
            # The process may be gone by now, or not ours to look at.
            with suppress(OSError):
                found.update(re.findall(re.escape(f"{self.root}/") + r"([^/:,]+)/root", mounts.read_text()))
        return found

    def prune(self, keep: set[str]) -> list[str]:
        """Remove old versions of layers, and all that unfinished bakes left; returns what was removed.

        Bakes that end at the same time do this one after another.

        Args:
            keep: ids of layers that must stay. Mounted layers stay in any case.
        """
        with open(self.root / ".prune", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            return self._prune(keep)

    def _prune(self, keep: set[str]) -> list[str]:
        keep = keep | self.in_use()
        by_name: dict[str, list[Path]] = {}
        removed = []
        for path in self.root.glob("*-*"):
            if not path.name.startswith("."):
                by_name.setdefault(path.name.rsplit("-", 1)[0], []).append(path)
        for versions in by_name.values():
            versions.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for path in versions[KEPT_PER_LAYER:]:
                if path.name not in keep:
                    shutil.rmtree(path, ignore_errors=True)
                    removed.append(path.name)
        for lock in self.root.glob(".lock-*"):
            with lock.open("w") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(self.root / lock.name.replace(".lock-", ".partial-"), ignore_errors=True)
                lock.unlink()
        return removed
