"""The services of a machine, as systemd and the journal see them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from aisandbox.instance.run import systemctl
from aisandbox.instance.run.services import Crashes, Unit, last_words
from aisandbox.instance.run.systemctl import PATIENCE_S

FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
"""How systemd marks its journal entry of a unit's failure (its catalogue: "Unit failed")."""
LAST_LINES = 60
PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "ActiveEnterTimestampMonotonic")


def units(names: tuple[str, ...]) -> tuple[Unit, ...]:
    """States of those of the units that exist; none where systemd cannot be asked."""
    return parse(show(names))


def watch(names: tuple[str, ...]) -> Callable[[], tuple[Unit, ...]]:
    """`units` for somebody who asks all the time."""
    from aisandbox.instance.run.unit_watch import UnitWatch  # its library is in the appliance's environment alone

    return UnitWatch(names).units


def show(names: tuple[str, ...]) -> systemctl.Properties:
    """The units' properties, for `parse`; none where systemd cannot be asked."""
    try:
        return systemctl.show(names, *PROPERTIES)
    except (OSError, subprocess.SubprocessError):
        return {}


def parse(shown: systemctl.Properties) -> tuple[Unit, ...]:
    """States of those of the units that exist, by what `show` gave."""
    return tuple(_unit(name, shown[name]) for name in shown if shown[name].get("LoadState") == "loaded")


def crashes(name: str) -> Crashes:
    """A unit's crashes in this boot, by the journal."""
    failures = _journal(f"UNIT={name}", f"MESSAGE_ID={FAILED}")
    times = tuple(int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6 for entry in failures)
    return Crashes(times, last_words(str(entry.get("MESSAGE") or "") for entry in _journal(f"_SYSTEMD_UNIT={name}")))


def _journal(*matches: str) -> list[dict[str, Any]]:
    """The unit's last entries of this boot; none for those who may not read them."""
    command = ["journalctl", "--boot", "--quiet", "--output=json", f"--lines={LAST_LINES}", *matches]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
        return [json.loads(line) for line in shown.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def restart(*names: str) -> None:
    """Restart the units, also those that systemd has given up on, without waiting for them.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    systemctl.run("reset-failed", *names, check=False)
    systemctl.run("restart", "--no-block", *names)


def reload(*names: str) -> None:
    """Have the units read their configuration again, without waiting for them.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    systemctl.run("reload-or-restart", "--no-block", *names)


def refresh(*names: str) -> None:
    """Like `reload`, of those units only that run already: while the machine starts, the others come later anyway.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    systemctl.run("try-reload-or-restart", "--no-block", *names)


def reload_now(name: str) -> None:
    """Have the unit, if it runs, read its configuration again, and wait for it.

    Raises:
        OSError, subprocess.SubprocessError: the unit refuses its configuration, or systemd cannot be asked.
    """
    systemctl.run("try-reload-or-restart", name)


def _unit(name: str, block: dict[str, str]) -> Unit:
    return Unit(
        name=name,
        active=block.get("ActiveState", ""),
        sub=block.get("SubState", ""),
        result=block.get("Result", ""),
        restarts=int(block.get("NRestarts") or 0),
        entered_s=_age(block.get("ActiveEnterTimestampMonotonic", "")),
    )


def _age(monotonic_us: str) -> float | None:
    """Seconds since a time stamp of systemd's."""
    if not monotonic_us.isdecimal() or monotonic_us == "0":
        return None
    return round(clock() - int(monotonic_us) / 1e6, 1)


def clock() -> float:
    """Seconds on the clock that systemd and the journal call monotonic."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
