"""The appliance's services, as systemd sees them."""

from __future__ import annotations

import functools
import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from aisandbox.instance.engine_watch import last_error
from aisandbox.manifest import Part

VOLUME = "aisandbox-volume.service"
CONFIGURE = "aisandbox-configure.service"
MODEL = "aisandbox-model.service"
ENGINE_SYNC = "aisandbox-engine-sync.service"
STATUS = "aisandbox-status.service"
VLLM = "vllm.service"
OPEN_WEBUI = "open-webui.service"
NGINX = "nginx.service"
CERTIFICATE = "aisandbox-certificate.service"
FIREWALL = "nftables.service"
SANDBOX_API = "sandbox-api.service"
SANDBOX = (
    SANDBOX_API,
    "sandbox-display.service",
    "sandbox-window-manager.service",
    "sandbox-browser.service",
    "jupyter.service",
    "code-server.service",
)

SERVICES = (CONFIGURE, MODEL, VLLM, OPEN_WEBUI, NGINX, *SANDBOX)
"""What users see in status and logs."""

LOOP_CRASHES = 3
LOOP_WINDOW_S = 600.0
"""A service that has crashed so often in this time is in a crash loop, until one of its runs has been long enough."""
SETTLED_S = 60.0
"""What is long enough, unless its runs before were longer."""
FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
"""How systemd marks its journal entry of a unit's failure (its catalogue: "Unit failed")."""
LAST_LINES = 60
LONGEST_ERROR = 200


class Unit(Part):
    """State of one unit, in systemd's words."""

    name: str
    active: str
    sub: str
    result: str
    restarts: int
    """How often systemd has started it again by itself, since it was last started otherwise."""
    entered_s: float | None = Field(default=None, exclude=True)
    """How many seconds ago it last began to run; None when it never has."""

    @property
    def up_s(self) -> float | None:
        """Seconds that it has been running; None while it does not."""
        return self.entered_s if self.active == "active" else None


@dataclass(frozen=True)
class Crashes:
    """What the journal knows of a unit's crashes in this boot."""

    times: tuple[float, ...] = ()
    """Seconds since power-on, oldest first."""
    error: str = ""
    """What it said last before it ended."""


def units(names: tuple[str, ...] = SERVICES) -> tuple[Unit, ...]:
    """States of those of the units that exist; none where systemd cannot be asked."""
    properties = "Id,LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestampMonotonic"
    try:
        shown = _run("show", f"--property={properties}", *names)
    except (OSError, subprocess.SubprocessError):
        return ()
    blocks = (dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n"))
    return tuple(_unit(block) for block in blocks if block.get("LoadState") == "loaded")


def crash_loop(unit: Unit) -> str | None:
    """One sentence on a unit that keeps crashing: how often, why, when it is tried again; None when it does not."""
    if unit.restarts < LOOP_CRASHES or (unit.up_s or 0) > LOOP_WINDOW_S:
        return None
    return describe_loop(
        unit, _crashes(unit.name, unit.restarts, unit.active), time.clock_gettime(time.CLOCK_MONOTONIC)
    )


def describe_loop(unit: Unit, crashes: Crashes, now: float) -> str | None:
    """`crash_loop` for what is known; `now` is on the clock of the crashes' times."""
    if not crashes.times:
        # The journal is not for everyone: then systemd's own count must do, though it counts all ends.
        looping = unit.active != "active" or (unit.up_s or 0) < SETTLED_S
        return f"{unit.name} has crashed {unit.restarts} times; it is tried again by itself" if looping else None
    recent = [at for at in crashes.times if now - at <= LOOP_WINDOW_S]
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(recent))
    if len(recent) < LOOP_CRASHES or now - recent[-1] > max(SETTLED_S, 2 * gaps[-1]):
        return None
    parts = [f"{unit.name} has crashed {len(recent)} times in {_duration(now - recent[0])}"]
    if crashes.error:
        parts.append(f"last error: {crashes.error}")
    parts.append(f"it is tried again every {_duration(gaps[len(gaps) // 2])}")
    return "; ".join(parts)


@functools.lru_cache(maxsize=32)
def _crashes(name: str, restarts: int, active: str) -> Crashes:
    """A unit's crashes, by the journal; read again whenever its count or its state changes."""
    failures = _journal(f"UNIT={name}", f"MESSAGE_ID={FAILED}")
    times = tuple(int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6 for entry in failures)
    return Crashes(times, last_words(str(entry.get("MESSAGE") or "") for entry in _journal(f"_SYSTEMD_UNIT={name}")))


def last_words(lines: Iterable[str]) -> str:
    """The last line that names an error, without secrets; empty when none does."""
    from aisandbox.instance import scrub  # needs more than others of this module's users want to import

    said = list(lines)
    error = last_error(said) or next((line for line in reversed(said) if _ERROR.search(line)), "")
    return scrub.text(error.strip())[:LONGEST_ERROR]


_ERROR = re.compile(r"\b(?:emerg|fatal|panic|error)\b", re.IGNORECASE)


def _journal(*matches: str) -> list[dict[str, Any]]:
    """The unit's last entries of this boot; none for those who may not read them."""
    command = ["journalctl", "--boot", "--quiet", "--output=json", f"--lines={LAST_LINES}", *matches]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        return [json.loads(line) for line in shown.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _duration(seconds: float) -> str:
    """Rounded for people."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} minutes"


def restart(*names: str) -> None:
    """Restart the units, also those that systemd has given up on, without waiting for them.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    _run("reset-failed", *names, check=False)
    _run("restart", "--no-block", *names)


def reload(*names: str) -> None:
    """Have the units read their configuration again, without waiting for them.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    _run("reload-or-restart", "--no-block", *names)


def refresh(*names: str) -> None:
    """Like `reload`, of those units only that run already: while the machine starts, the others come later anyway.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    _run("try-reload-or-restart", "--no-block", *names)


def reload_now(name: str) -> None:
    """Have the unit, if it runs, read its configuration again, and wait for it.

    Raises:
        OSError, subprocess.SubprocessError: the unit refuses its configuration, or systemd cannot be asked.
    """
    _run("try-reload-or-restart", name)


def lay_out() -> None:
    """Make the places that services write to, as at boot, on a data directory that was mounted since.

    Raises:
        OSError, subprocess.SubprocessError: a place cannot be made.
    """
    subprocess.run(["systemd-tmpfiles", "--create", "aisandbox.conf"], timeout=60, check=True)


def _unit(block: dict[str, str]) -> Unit:
    return Unit(
        name=block["Id"],
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
    return round(_clock() - int(monotonic_us) / 1e6, 1)


def _clock() -> float:
    """Seconds on the clock that systemd and the journal call monotonic."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _run(*arguments: str, check: bool = True) -> str:
    command = ["systemctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=check).stdout
