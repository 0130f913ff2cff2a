"""Processor time of a suite with everything that it starts, by a control group of its own."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup/cpuacct")
"""Only the first version's accounting: a machine in a group of the second one could not make groups of its own."""
PREFIX = "aisandbox-test-"
"""How names of the groups begin."""
IDLE_SHARE = 0.1
"""A suite that uses less of one core than this is waiting."""


class Account:
    """Counts what runs in one control group; counts nothing where none can be made."""

    def __init__(self, name: str) -> None:
        self._folder = ROOT / f"{PREFIX}{os.getpid()}-{name}"
        self._last: tuple[float, float] | None = None
        self.seconds: float | None = None
        self.waiting: float | None = None
        with suppress(OSError):
            self._folder.mkdir()
            self.seconds = self.waiting = 0.0

    def join(self) -> None:
        """Move this process into the group; its children start there."""
        with suppress(OSError):
            (self._folder / "cgroup.procs").write_text("0")

    def sample(self) -> None:
        """Read the counter; call it about once a second."""
        if self.seconds is None or self.waiting is None:
            return
        now, used = time.monotonic(), int((self._folder / "cpuacct.usage").read_text()) / 1e9
        if self._last:
            elapsed = now - self._last[0]
            if used - self._last[1] < IDLE_SHARE * elapsed:
                self.waiting += elapsed
        self._last, self.seconds = (now, used), used

    def close(self) -> None:
        """Read the counter for the last time and remove the group, unless something still runs in it."""
        self.sample()
        with suppress(OSError):
            self._folder.rmdir()


def busy_seconds() -> float:
    """Processor seconds that this host has spent so far, over all cores."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
