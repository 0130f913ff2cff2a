"""How a service tells what it is doing: one small file each, which `aisandbox status` puts together."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from aisandbox.instance import clock, files

PHASES = ("configure", "model", "engine")
"""Services that report, in the order in which they work towards the first answer."""
CERTIFICATE = "certificate"
"""Reports only when there is a domain."""
DEVICES = "gpu"
FABRIC = "fabric"
MACHINE = (DEVICES, FABRIC)
"""What prepares the machine's GPUs; reports only where it applies."""

State = Literal["running", "done", "failed"]

NOTICE = "<5>" if {"JOURNAL_STREAM", "SUPERVISOR_ENABLED"} & set(os.environ) else ""
"""Marks a report in a service's log, as sd-daemon(3) does: what is marked may be published, other output may not."""


def now() -> str:
    """The time as status files give it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Reporter:
    """Writes the status file of one service, and a journal line whenever the message changes (unless `quiet`).

    `phase` names the step at hand; in the file, `began` is when this run of the work began, `since` when its state was
    entered, `timeline` when each step was first entered since power-on, in seconds; a service that is started again
    carries it on.
    """

    def __init__(self, path: Path, quiet: bool = False) -> None:
        self._path = path
        self._quiet = quiet
        self._began = self._since = now()
        self._state: State | None = None
        self._message = ""
        earlier = (files.read_json(path) or {}).get("timeline")
        self._timeline: dict[str, float] = earlier if isinstance(earlier, dict) else {}

    def running(self, phase: str, message: str, **facts: Any) -> None:
        self._write(phase, "running", message, "", facts)

    def done(self, phase: str, message: str, **facts: Any) -> None:
        self._write(phase, "done", message, "", facts)

    def failed(self, phase: str, message: str, fix: str, **facts: Any) -> None:
        self._write(phase, "failed", message, fix, facts)

    def _write(self, phase: str, state: State, message: str, fix: str, facts: dict[str, Any]) -> None:
        if state != self._state:
            if state == "running" and self._state:  # after an end: the work is done once more
                self._began = now()
            self._state, self._since = state, now()
        if message != self._message:
            self._message = message
            if not self._quiet:
                print(f"{NOTICE}{message} {fix}".strip(), file=sys.stderr, flush=True)
        # Under a name of its own: a step can end long after it was entered.
        self._timeline.setdefault(phase if state == "running" else state, round(clock.since_power_on(), 2))
        entry = {
            "phase": phase,
            "state": state,
            "message": message,
            "fix": fix,
            "began": self._began,
            "since": self._since,
            "updated": now(),
            "timeline": self._timeline,
        }
        files.write_json(self._path, {**facts, **entry})
