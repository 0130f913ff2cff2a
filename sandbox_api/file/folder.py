"""Folders held open, so that what is done in them cannot be led elsewhere by a link that is put in their place."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sandbox_api import privileges
from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import shown
from sandbox_api.paths import Confinement
from sandbox_api.quotas import Reserve

FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# A named pipe must not make us wait for its other end.
FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
COPIED = 2**20
MOST_PARTS = 512
DRAFT = re.compile(r"\.sandbox-[0-9a-f]{16}\.tmp")
"""Names of files and folders that are being written."""
STARTED = time.time()


def draft_name() -> str:
    return f".sandbox-{secrets.token_hex(8)}.tmp"


def is_in_progress(name: str, path: str) -> bool:
    """Whether this is a draft of the running server. Those of an earlier server are leftovers."""
    if not DRAFT.fullmatch(name):
        return False
    try:
        # Not mtime: a folder that is being copied has the mtime of its original.
        return os.lstat(path).st_ctime >= STARTED
    except OSError:
        return True


class Folder:
    """An open folder. Names are single parts of a path; links in their place are never followed."""

    def __init__(self, path: Path, descriptor: int, reserve: Reserve) -> None:
        self.path = path
        self.descriptor = descriptor
        self.reserve = reserve

    def open(self, name: str, flags: int, mode: int = 0o666) -> int:
        return os.open(name, flags | FILE_FLAGS, mode, dir_fd=self.descriptor)

    def stat(self, name: str) -> os.stat_result | None:
        """Of the thing itself, a link included; None if there is nothing."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self.descriptor)

    def rename(self, name: str, folder: Folder, new: str) -> None:
        os.replace(name, new, src_dir_fd=self.descriptor, dst_dir_fd=folder.descriptor)

    def writable(self, name: str) -> bool:
        return privileges.may(name, os.W_OK, self.descriptor)


@contextmanager
def parent_of(paths: Confinement, real: Path, *, create: bool = False) -> Iterator[Folder]:
    """The open parent folder of a resolved path.

    Every part is opened without following links: `real` has none, and one that turned up since is refused.

    Args:
        create: make the missing folders.

    Raises:
        SandboxError: `permission_denied` for one of the reachable roots itself: its parent is not ours.
        OSError: a part is missing or no folder.
    """
    root = next((root for root in paths.roots if root in real.parents), None)
    if root is None:
        raise SandboxError("permission_denied", f"this folder itself cannot be changed: {shown(real)}")
    parent = real.parent
    descriptor = os.open(root, FOLDER_FLAGS)
    try:
        for part in parent.relative_to(root).parts:
            inner = _enter(descriptor, part, create)
            os.close(descriptor)
            descriptor = inner
        yield Folder(parent, descriptor, paths.reserve)
    finally:
        os.close(descriptor)


def _enter(descriptor: int, part: str, create: bool) -> int:
    try:
        return os.open(part, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(part, dir_fd=descriptor)
    return os.open(part, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)


def require_file(found: os.stat_result, path: Path) -> None:
    """Raises `not_a_file` for folders, pipes, devices and sockets."""
    if stat.S_ISREG(found.st_mode):
        return
    kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
    raise SandboxError("not_a_file", f"{kind}: {shown(path)}")


@contextmanager
def opened(paths: Confinement, real: Path, flags: int = os.O_RDONLY) -> Iterator[IO[bytes]]:
    """A regular file, open and unbuffered.

    Raises:
        SandboxError: `not_a_file`.
        OSError: it cannot be opened.
    """
    if real in paths.roots:
        raise SandboxError("not_a_file", f"it is a folder: {shown(real)}")
    with parent_of(paths, real) as folder:
        descriptor = folder.open(real.name, flags)
    try:
        require_file(os.fstat(descriptor), real)
        stream = os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "ab", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise
    with stream:
        yield stream


class Draft:
    """A file that is being written beside its later place, under a name of its own, until `commit` puts it there."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.name = draft_name()
        self.descriptor = folder.open(self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def write(self, *parts: bytes | memoryview) -> None:
        self.folder.reserve.check(self.descriptor, sum(map(len, parts)))
        views = [memoryview(part) for part in parts if part]
        while views:
            written = os.writev(self.descriptor, views[:MOST_PARTS])
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]

    def commit(self, folder: Folder, name: str, replaced: os.stat_result | None) -> os.stat_result:
        """Give it its name and folder, which may be another one than it was written in.

        Args:
            replaced: the file of this name; its mode and owner are kept.

        Raises:
            OSError: EACCES if that file may not be written.
        """
        if replaced is not None:
            if not folder.writable(name):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            os.fchmod(self.descriptor, stat.S_IMODE(replaced.st_mode))
            with suppress(PermissionError):
                os.fchown(self.descriptor, replaced.st_uid, replaced.st_gid)
        result = os.fstat(self.descriptor)
        try:
            self.folder.rename(self.name, folder, name)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return self._copy_to(folder, name, result)
        return result

    def _copy_to(self, folder: Folder, name: str, found: os.stat_result) -> os.stat_result:
        """For a folder on another file system."""
        with draft(folder) as copy:
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            while chunk := os.read(self.descriptor, COPIED):
                copy.write(chunk)
            os.fchmod(copy.descriptor, stat.S_IMODE(found.st_mode))
            return copy.commit(folder, name, None)

    def discard(self) -> None:
        """Remove it, unless it was committed."""
        os.close(self.descriptor)
        with suppress(OSError):
            self.folder.unlink(self.name)


@contextmanager
def draft(folder: Folder) -> Iterator[Draft]:
    started = Draft(folder)
    try:
        yield started
    finally:
        started.discard()
