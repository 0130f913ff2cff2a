"""How a service tells what it is doing: one small file each, which `aisandbox status` puts together."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from aisandbox.instance import files

State = Literal["running", "done", "failed"]


def now() -> str:
    """The time as status files give it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Reporter:
    """Writes the status file of one service, and a journal line whenever the message changes (unless `quiet`).

    `phase` names the step at hand; `since` in the file is when its state was entered.
    """

    def __init__(self, path: Path, quiet: bool = False) -> None:
        self._path = path
        self._quiet = quiet
        self._since = now()
        self._state: State | None = None
        self._message = ""

    def running(self, phase: str, message: str, **facts: Any) -> None:
        self._write(phase, "running", message, "", facts)

    def done(self, phase: str, message: str, **facts: Any) -> None:
        self._write(phase, "done", message, "", facts)

    def failed(self, phase: str, message: str, fix: str, **facts: Any) -> None:
        self._write(phase, "failed", message, fix, facts)

    def _write(self, phase: str, state: State, message: str, fix: str, facts: dict[str, Any]) -> None:
        if state != self._state:
            self._state, self._since = state, now()
        if message != self._message:
            self._message = message
            if not self._quiet:
                print(f"{message} {fix}".strip(), file=sys.stderr, flush=True)
        entry = {
            "phase": phase,
            "state": state,
            "message": message,
            "fix": fix,
            "since": self._since,
            "updated": now(),
        }
        files.write_json(self._path, {**facts, **entry})
