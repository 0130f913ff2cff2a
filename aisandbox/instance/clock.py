"""Time as users feel it: from the machine's power-on."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path


def since_power_on() -> float:
    """Seconds since process 1 was started: the machine's power-on, and right in a container too.

    It does not jump when the wall clock is set, as that is at every boot.
    """
    return _age("1")


def process_age() -> float:
    """Seconds since this process was started. Exec does not restart it."""
    return _age("self")


def process_start() -> str:
    """When this process was started, by the wall clock."""
    return (datetime.now(UTC) - timedelta(seconds=process_age())).isoformat(timespec="milliseconds")


def _age(process: str) -> float:
    ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def of_systemd(monotonic_us: int) -> float:
    """A time stamp of systemd's monotonic clock, in seconds since power-on."""
    return since_power_on() - (time.clock_gettime(time.CLOCK_MONOTONIC) - monotonic_us / 1e6)


def power_on() -> str:
    """When that was, by the wall clock."""
    return (datetime.now(UTC) - timedelta(seconds=since_power_on())).isoformat(timespec="seconds")
