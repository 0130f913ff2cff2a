"""Quotas: disk, processes, memory, open files, file watches. Whatever reaches one ends in the same kind of error."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sandbox_api.errors import SandboxError

GIB, MIB = 2**30, 2**20
SHARE = 20
"""The reserve is at most this part of a disk, so that small ones can be written to."""
NO_THREAD = "can't start new thread"
PROCESSES = "processes", "no further process or thread can start: the limit is reached (TasksMax, ulimit -u)"
MEMORY = "memory", "not enough memory is left (MemoryMax)"
OPEN_FILES = "open_files", "too many files and connections are open (LimitNOFILE, ulimit -n)"
NUMBERS = {
    errno.EAGAIN: PROCESSES,
    errno.ENOMEM: MEMORY,
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: ("open_files", "too many files are open on the whole machine (fs.file-max)"),
    errno.EDQUOT: ("disk", "the disk quota is used up"),
}


def exceeded(quota: str, message: str) -> SandboxError:
    return SandboxError("quota_exceeded", message, data={"quota": quota})


def reached(error: BaseException) -> SandboxError | None:
    """What to say of an error whose cause is that a quota is reached, or the disk full; None for all others."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return exceeded(*MEMORY)
        if isinstance(cause, RuntimeError) and NO_THREAD in str(cause):
            return exceeded(*PROCESSES)
        if isinstance(cause, OSError) and cause.errno in NUMBERS:
            return exceeded(*NUMBERS[cause.errno])
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return SandboxError("disk_full", "the disk is full")
    return None


def translate(error: SandboxError) -> SandboxError:
    """The error, or the quota that is its cause: what cannot be done for want of one is not missing or broken."""
    refusal = reached(error)
    if refusal is None or error.code in ("quota_exceeded", "disk_full"):
        return error
    if isinstance(error.data, dict):
        refusal.data = {**error.data, **(refusal.data or {})}
    return refusal


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, those that it groups, and what each was raised from."""
    yield error
    for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else [error.__cause__]:
        if inner is not None:
            yield from _causes(inner)


class Reserve:
    """Free space that our own writes leave on a disk, for whatever else lives there. Args: wanted: bytes."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted

    def check(self, place: int | Path, size: int = 0) -> None:
        """Before `size` bytes are written where a descriptor or path leads.

        Raises:
            SandboxError: `quota_exceeded`.
        """
        free, kept = self.of(place)
        if free - size < kept:
            message = f"the disk has {_shown(free)} free, of which {_shown(kept)} are kept for the rest of the instance"
            raise exceeded("disk", f"{message}, so {_shown(size)} do not fit" if size else message)

    def of(self, place: int | Path) -> tuple[int, int]:
        """Bytes that are free there, and bytes that are kept free."""
        if not self._wanted:
            return sys.maxsize, 0
        disk = os.fstatvfs(place) if isinstance(place, int) else os.statvfs(place)
        if not disk.f_blocks:  # such as /proc
            return sys.maxsize, 0
        return disk.f_bavail * disk.f_frsize, min(self._wanted, disk.f_blocks * disk.f_frsize // SHARE)


def _shown(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"
