"""Which files of a mounted file system are started as programs, as the kernel reports it (fanotify)."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable
from pathlib import Path

_CLASS_NOTIFICATION, _NOT_BLOCKING, _UNLIMITED_QUEUE = 0x0, 0x2, 0x10
_MARK_ADD, _MARK_FILE_SYSTEM, _OPENED_TO_EXECUTE = 0x1, 0x100, 0x1000
_EVENT = struct.Struct("=IBBHQii")
"""Length, version, two fields of no use here, mask, descriptor of the file, process."""


def watch(folder: Path, take: Callable[[int, int], None]) -> Callable[[], None] | None:
    """Report every file of the folder's file system that is opened for execution, from a thread of its own.

    Args:
        take: gets a descriptor of the file, which is closed after the call, and the number of the process.

    Returns:
        What ends it, once all that has happened is reported; None where the kernel does not do it: it does so for root.
    """
    library = ctypes.CDLL(None, use_errno=True)
    flags = os.O_RDONLY | os.O_LARGEFILE | os.O_CLOEXEC
    descriptor = library.fanotify_init(_CLASS_NOTIFICATION | _UNLIMITED_QUEUE | _NOT_BLOCKING, flags)
    if descriptor < 0:
        return None
    mask = ctypes.c_uint64(_OPENED_TO_EXECUTE)
    if library.fanotify_mark(descriptor, _MARK_ADD | _MARK_FILE_SYSTEM, mask, -100, os.fsencode(folder)):
        os.close(descriptor)
        return None
    end = os.eventfd(0)
    thread = threading.Thread(target=_read, args=(descriptor, end, take), daemon=True)
    thread.start()

    def stop() -> None:
        os.eventfd_write(end, 1)
        thread.join()
        os.close(end)
        os.close(descriptor)

    return stop


def _read(descriptor: int, end: int, take: Callable[[int, int], None]) -> None:
    ended = False
    while not ended:
        ended = end in select.select([descriptor, end], [], [])[0]
        try:
            while events := os.read(descriptor, 65536):
                _report(events, take)
        except BlockingIOError:
            pass


def _report(events: bytes, take: Callable[[int, int], None]) -> None:
    while events:
        length, *_, file, process = _EVENT.unpack_from(events)
        events = events[length:]
        try:
            take(file, process)
        finally:
            os.close(file)
