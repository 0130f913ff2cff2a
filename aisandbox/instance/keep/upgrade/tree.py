"""Files and folders of a release: their digest, and moving them so that a power cut leaves nothing half."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.keep.upgrade import rules

BLOCK = 1 << 20
Progress = Callable[[int], None]
"""Called with numbers of bytes that were worked off."""


@dataclass(frozen=True)
class Measure:
    """What a component comes to."""

    digest: str
    """Of names, kinds, modes, owners, link targets and contents; not of times."""
    bytes: int
    entries: int


def entries(root: Path, paths: Sequence[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Everything at and below these paths (relative to `root`) in a fixed order, folders before what is in them.

    What is missing is left out. A link into the current release counts as what it leads to.
    """
    for path in sorted(paths):
        try:
            status = os.lstat(root / path)
            if stat.S_ISLNK(status.st_mode) and is_own_link(root, path):
                status = (root / path).stat()
        except FileNotFoundError:
            continue
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from entries(root, [f"{path}/{entry.name}" for entry in os.scandir(root / path)])


def measure(root: Path, paths: Sequence[str], progress: Progress | None = None) -> Measure:
    """Reckon the digest of the content at these paths.

    Raises:
        OSError: something cannot be read.
    """
    whole = hashlib.sha256()
    size = count = 0
    for path, status in entries(root, paths):
        kind = stat.S_IFMT(status.st_mode)
        content = ""
        if kind == stat.S_IFREG:
            content = file_digest(root / path, progress)
            size += status.st_size
        elif kind == stat.S_IFLNK:
            content = str((root / path).readlink())
        mode = 0 if kind == stat.S_IFLNK else stat.S_IMODE(status.st_mode)
        line = json.dumps([path, kind, mode, status.st_uid, status.st_gid, content])
        whole.update(f"{line}\n".encode())
        count += 1
    return Measure(whole.hexdigest(), size, count)


def fingerprint(root: Path, paths: Sequence[str]) -> str:
    """Changes whenever anything at these paths was touched; much cheaper than the digest."""
    whole = hashlib.sha256()
    for path, status in entries(root, paths):
        facts = [status.st_mode, status.st_uid, status.st_gid]
        if not stat.S_ISDIR(status.st_mode):
            # A folder's entries tell of its changes; its other facts depend on the mount where layers lie over layers.
            facts += [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        whole.update(f"{path}\0{facts}\n".encode())
    return whole.hexdigest()


class Memory:
    """Remembers measures, so that what was not touched since is not read again."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = files.read_json(file) or {}

    def measure(self, name: str, root: Path, paths: Sequence[str], progress: Progress | None = None) -> Measure:
        """Like `measure`; `name` is what the result is remembered by.

        Raises:
            OSError: something cannot be read.
        """
        mark = fingerprint(root, paths)
        known = self._known.get(name)
        if isinstance(known, dict) and known.get("fingerprint") == mark:
            return Measure(known["digest"], known["bytes"], known["entries"])
        measured = measure(root, paths, progress)
        self._known[name] = {"fingerprint": mark, **asdict(measured)}
        return measured

    def keep(self) -> None:
        files.write_json(self._file, self._known)


def file_digest(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()


def own_link(path: str) -> str:
    """Text of the link at that path, relative to `/`, which leads to the same path of the current release."""
    return os.path.relpath(f"{rules.CURRENT}/{path}", os.path.dirname(path))  # noqa: PTH120 - no Path, but text


def is_own_link(root: Path, path: str) -> bool:
    """Whether such a link is there."""
    live = root / path
    return rules.in_opt(path) and live.is_symlink() and str(live.readlink()) == own_link(path)


def exists(path: Path) -> bool:
    """Whether there is anything at that path, a link to nowhere included."""
    return os.path.lexists(path)


def remove(path: Path) -> None:
    """Have nothing at that path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif exists(path):
        path.unlink()


def move(source: Path, target: Path) -> None:
    """Move a folder or file to where nothing is; `target` appears whole.

    By a rename. Where the kernel refuses that (a folder of a lower layer of an overlay), by a copy.
    """
    make_folder(target.parent)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy(source, target)
        remove(source)
    sync_folder(target.parent)
    sync_folder(source.parent)


def copy(source: Path, target: Path) -> None:
    """Copy a folder, file or link with all that its digest covers; `target` appears whole and replaces a file."""
    make_folder(target.parent)
    partial = partial_of(target)
    remove(partial)
    _copy(source, partial)
    if partial.is_dir() and not partial.is_symlink():
        os.sync()
    partial.rename(target)
    sync_folder(target.parent)


def link(path: Path, text: str) -> None:
    """Make the path a symbolic link with that text; it replaces a link or a file atomically."""
    make_folder(path.parent)
    partial = partial_of(path)
    remove(partial)
    if path.is_symlink() and str(path.readlink()) == text:
        return
    partial.symlink_to(text)
    partial.rename(path)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, readable by every service whatever the umask is."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir()
        path.chmod(0o755)


def partial_of(target: Path) -> Path:
    """Where a copy lies until it is whole."""
    return target.with_name(f".{target.name}.aisandbox-upgrade")


def _copy(source: Path, target: Path) -> None:
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(status.st_mode):
        target.mkdir()
        for entry in os.scandir(source):
            _copy(Path(entry.path), target / entry.name)
    else:
        with source.open("rb") as reader, target.open("xb") as writer:
            shutil.copyfileobj(reader, writer, BLOCK)
            writer.flush()
            os.fsync(writer.fileno())
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        target.chmod(stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def sync_folder(path: Path) -> None:
    """Make renames in a folder last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
