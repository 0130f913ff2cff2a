"""The models on disk, in Hugging Face's cache layout.

A model counts as complete when every file that is needed has once had the right checksum and is unchanged since. Each
snapshot's record of that lies beside it in `.verified/`, so that neither a boot without network nor one with a model
of many gigabytes waits for anything.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.places import MODEL_PREFIX, cache_name

COMMIT = re.compile(r"[0-9a-f]{40}")
READ_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class Stamp:
    """What a verified file looked like: if none of it has changed, neither has the content."""

    size: int
    mtime_ns: int
    inode: int
    digest: str
    """sha256 of a large file, git's blob id (sha1) of a small one."""

    @classmethod
    def of(cls, path: Path, digest: str) -> Stamp:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, digest)

    def fits(self, path: Path) -> bool:
        try:
            return Stamp.of(path, self.digest) == self
        except OSError:
            return False


@dataclass(frozen=True)
class Repository:
    """One model's folder in the cache."""

    path: Path

    @classmethod
    def of(cls, cache: Path, model: str) -> Repository:
        return cls(cache / cache_name(model))

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    def snapshot(self, commit: str) -> Path:
        return self.path / "snapshots" / commit

    def pinned(self, revision: str) -> str | None:
        """The commit that the revision stood for when it was last fetched."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            commit = self._ref(revision).read_text().strip()
        except (OSError, ValueError):
            return None
        return commit if COMMIT.fullmatch(commit) else None

    def pin(self, revision: str, commit: str) -> None:
        """Let the revision stand for this commit from now on."""
        if revision != commit:
            files.write(self._ref(revision), commit)

    def _ref(self, revision: str) -> Path:
        if ".." in revision.split("/"):
            raise ValueError(f"{revision} is no name of a revision")
        return self.path / "refs" / revision

    def record(self, commit: str) -> dict[str, Stamp]:
        """Stamps of the snapshot's verified files; empty when there are none."""
        entries = files.read_json(self._record(commit)) or {}
        try:
            return {name: Stamp(*stamp) for name, stamp in entries.items()}
        except TypeError:
            return {}

    def save_record(self, commit: str, stamps: dict[str, Stamp]) -> None:
        """Remember that these files are verified."""
        entries = {name: [stamp.size, stamp.mtime_ns, stamp.inode, stamp.digest] for name, stamp in stamps.items()}
        files.write_json(self._record(commit), entries)

    def _record(self, commit: str) -> Path:
        return self.path / ".verified" / f"{commit}.json"

    def discard(self, file: Path) -> None:
        """Remove a snapshot's file together with its content."""
        blob = file.resolve()
        if blob.is_relative_to(self.path.resolve()):
            blob.unlink(missing_ok=True)
        file.unlink(missing_ok=True)


def complete(cache: Path, model: str, revision: str) -> Path | None:
    """The model's folder when all of it is on disk and verified; asks no network.

    A file that has changed since it was verified is read again; one that is damaged is removed.
    """
    repository = Repository.of(cache, model)
    commit = repository.pinned(revision)
    if commit is None:
        return None
    folder = repository.snapshot(commit)
    stamps = repository.record(commit)
    changed = [name for name, stamp in stamps.items() if not stamp.fits(folder / name)]
    for name in changed:
        try:
            intact = digest(folder / name, stamps[name].digest) == stamps[name].digest
        except OSError:
            return None
        if not intact:
            repository.discard(folder / name)
            return None
        stamps[name] = Stamp.of(folder / name, stamps[name].digest)
    if changed:
        repository.save_record(commit, stamps)
    return folder if stamps else None


def hasher(size: int, like: str) -> Any:
    """A running checksum of the kind of this one: sha256, or git's blob id of a file of so many bytes."""
    if len(like) == hashlib.sha256().digest_size * 2:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def digest(path: Path, like: str, advance: Callable[[int], None] = lambda count: None) -> str:
    """The file's checksum, of the same kind as `like`; `advance` hears of the bytes read."""
    running = hasher(path.stat().st_size, like)
    buffer = memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            running.update(buffer[:count])
            advance(count)
    return str(running.hexdigest())


@dataclass(frozen=True)
class Cached:
    """One model on disk."""

    model: str
    commits: tuple[str, ...]
    size_bytes: int
    """With unfinished downloads."""
    complete: bool
    """Whether at least one commit is there and verified."""


def models(cache: Path) -> list[Cached]:
    """Every model in the cache, by name."""
    found = []
    for path in sorted(cache.glob(f"{MODEL_PREFIX}*--*")):
        if not path.is_dir():
            continue
        repository = Repository(path)
        snapshots = path / "snapshots"
        commits = tuple(sorted(entry.name for entry in snapshots.iterdir())) if snapshots.is_dir() else ()
        found.append(
            Cached(
                model=path.name.removeprefix(MODEL_PREFIX).replace("--", "/", 1),
                commits=commits,
                size_bytes=_size(path.rglob("*")),
                complete=any(repository.record(commit) for commit in commits),
            )
        )
    return found


def _size(paths: Iterable[Path]) -> int:
    # A hole of a sparse file takes no space.
    return sum(path.lstat().st_blocks * 512 for path in paths if path.is_file() and not path.is_symlink())


def remove(cache: Path, model: str) -> bool:
    """Remove a model with everything of it. Returns whether there was one."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    path = Repository.of(cache, model).path
    if not path.is_dir():
        return False
    try:
        repositories = scan_cache_dir(cache).repos
    except CacheNotFound:
        repositories = frozenset()
    commits = [
        revision.commit_hash for entry in repositories if entry.repo_path == path for revision in entry.revisions
    ]
    if commits:
        scan_cache_dir(cache).delete_revisions(*commits).execute()
    # What never became a snapshot, and what the library does not know.
    shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(cache / ".locks" / path.name, ignore_errors=True)
    return True
