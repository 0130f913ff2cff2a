"""The appliance's services: their names, their state, and what can be asked of them.

Two back-ends know them: `systemd` on a machine, `container.supervisor` in the container of the whole appliance.
"""

from __future__ import annotations

import functools
import itertools
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from pydantic import Field

from aisandbox.instance import last_words as words
from aisandbox.instance.places import PROGRAMS
from aisandbox.manifest import Part

CONFIGURE = "aisandbox-configure.service"
MODEL = "aisandbox-model.service"
ENGINE_SYNC = "aisandbox-engine-sync.service"
STATUS = "aisandbox-status.service"
VLLM = "vllm.service"
OPEN_WEBUI = "open-webui.service"
AUXILIARY = "auxiliary.service"
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

SERVICES = (CONFIGURE, MODEL, VLLM, OPEN_WEBUI, AUXILIARY, NGINX, *SANDBOX)
"""What users see in status and logs."""

LOOP_CRASHES = 3
LOOP_WINDOW_S = 600.0
"""A service that has crashed so often in this time is in a crash loop, until one of its runs has been long enough."""
SETTLED_S = 60.0
"""What is long enough, unless its runs before were longer."""
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


class Backend(Protocol):
    """What runs the services of an instance. Actions raise OSError or subprocess.SubprocessError."""

    def units(self, names: tuple[str, ...]) -> tuple[Unit, ...]:
        """States of those of the units that exist; none where it cannot be asked."""

    def watch(self, names: tuple[str, ...]) -> Callable[[], tuple[Unit, ...]]:
        """`units` for somebody who asks all the time."""

    def crashes(self, name: str) -> Crashes:
        """What is known of a unit's crashes."""

    def clock(self) -> float:
        """Now, on the clock of the crashes' times."""

    def restart(self, *names: str) -> None:
        """Restart the units, also those that it has given up on, without waiting until they run."""

    def reload(self, *names: str) -> None:
        """Have the units read their configuration again, without waiting for them."""

    def refresh(self, *names: str) -> None:
        """Like `reload`, of those units only that run already: the others come later anyway."""

    def reload_now(self, name: str) -> None:
        """Have the unit, if it runs, read its configuration again, and wait for it; it may refuse it."""


@functools.cache
def backend() -> Backend:
    """What runs the services here."""
    module = "container.supervisor" if PROGRAMS.exists() else "systemd"
    # Not by an import: both need what stands above.
    runs: Backend = import_module(f"aisandbox.instance.run.{module}")
    return runs


def units(names: tuple[str, ...] = SERVICES) -> tuple[Unit, ...]:
    """States of those of the units that exist; none where what runs them cannot be asked."""
    return backend().units(names)


def watch(names: tuple[str, ...] = SERVICES) -> Callable[[], tuple[Unit, ...]]:
    """`units` for somebody who asks all the time, at little cost."""
    return backend().watch(names)


def restart(*names: str) -> None:
    """Restart the units, also those that have been given up on, without waiting until they run.

    Raises:
        OSError, subprocess.SubprocessError: what runs them refused or cannot be asked.
    """
    backend().restart(*names)


def reload(*names: str) -> None:
    """Have the units read their configuration again, without waiting for them.

    Raises:
        OSError, subprocess.SubprocessError: what runs them refused or cannot be asked.
    """
    backend().reload(*names)


def refresh(*names: str) -> None:
    """Like `reload`, of those units only that run already: while the machine starts, the others come later anyway.

    Raises:
        OSError, subprocess.SubprocessError: what runs them refused or cannot be asked.
    """
    backend().refresh(*names)


def reload_now(name: str) -> None:
    """Have the unit, if it runs, read its configuration again, and wait for it.

    Raises:
        OSError, subprocess.SubprocessError: the unit refuses its configuration, or what runs it cannot be asked.
    """
    backend().reload_now(name)


def short(name: str) -> str:
    """A unit's name as people know it, such as `model` or `vllm`."""
    return name.removesuffix(".service").removeprefix("aisandbox-")


def crash_loop(unit: Unit) -> str | None:
    """One sentence on a unit that keeps crashing: how often, why, when it is tried again; None when it does not."""
    if unit.restarts < LOOP_CRASHES or (unit.up_s or 0) > LOOP_WINDOW_S:
        return None
    return describe_loop(unit, _crashes(unit.name, unit.restarts, unit.active), backend().clock())


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
    """A unit's crashes; asked for again whenever its count or its state changes."""
    return backend().crashes(name)


def last_words(lines: Iterable[str]) -> str:
    """The last line that names an error, without secrets; empty when none does."""
    from aisandbox.instance import scrub  # needs more than others of this module's users want to import

    return scrub.text(words.last_words(lines))[:LONGEST_ERROR]


def _duration(seconds: float) -> str:
    """Rounded for people."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} minutes"


def lay_out() -> None:
    """Make the places that services write to, as at boot, on a data directory that was mounted since.

    Raises:
        OSError, subprocess.SubprocessError: a place cannot be made.
    """
    subprocess.run(["systemd-tmpfiles", "--create", "aisandbox.conf"], timeout=60, check=True)
