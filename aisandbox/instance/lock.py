"""One change of the instance at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STEP_S = 0.05


class BusyError(Exception):
    """Somebody else holds the lock."""


@contextmanager
def held(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock of that file, which the kernel frees however its holder ends.

    Raises:
        BusyError: it was not free within that time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        end = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise BusyError(f"{path} is held by another run") from None
                time.sleep(STEP_S)
        yield
    finally:
        os.close(descriptor)
