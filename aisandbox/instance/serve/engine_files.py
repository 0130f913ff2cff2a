"""The files between the engine and its neighbours: the deployment it takes, the status it gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aisandbox.instance import clock, files
from aisandbox.instance.deployment import Deployment, DocumentError
from aisandbox.instance.observe.report import now
from aisandbox.instance.serve.fallbacks import Mode

POLL_SECONDS = 0.05

Phase = Literal["import", "wait", "load", "serve"]
State = Literal["running", "done", "failed"]


def read(path: Path) -> Deployment | None:
    """The located deployment, or None while there is none.

    Raises:
        DocumentError: it is unusable.
    """
    found = Deployment.load(path)
    if found and not found.candidates:
        raise DocumentError("`candidates` is empty")
    return found


def wait(path: Path, on_invalid: Callable[[DocumentError], None]) -> Deployment:
    """Wait for a valid document; `on_invalid` hears about each unusable one once."""
    complaint = ""
    while True:
        try:
            if found := read(path):
                return found
            complaint = ""
        except DocumentError as error:
            if str(error) != complaint:
                complaint = str(error)
                on_invalid(error)
        time.sleep(POLL_SECONDS)


@dataclass
class Status:
    """`status/engine.json`: where the engine is, for the progress page and for people."""

    path: Path
    mode: Mode = "fast"
    config: str = ""
    _timeline: dict[str, float] = field(default_factory=dict)
    _published: tuple[str, str] = ("", "")
    _since: str = ""

    def carry_on(self) -> None:
        """Keep the times of the program that this process ran before."""
        earlier = (files.read_json(self.path) or {}).get("timeline")
        self._timeline = dict(earlier) if isinstance(earlier, dict) else {}

    def publish(self, phase: Phase, state: State, message: str, fix: str = "", **facts: Any) -> None:
        """Write the status, and a line for the journal. `facts` stand beside the rest."""
        if (phase, state) != self._published:
            self._published, self._since = (phase, state), now()
        self._timeline.setdefault(phase, round(clock.process_age(), 2))
        print(f"engine: {phase} {state}: {message}", flush=True)
        entry = {"phase": phase, "state": state, "message": message, "fix": fix}
        times = {"since": self._since, "updated": now(), "timeline": self._timeline}
        taken = {"config": self.config} if self.config else {}
        content = {**facts, "service": "engine", "mode": self.mode, **entry, **times, **taken}
        try:
            files.write_json(self.path, content)
        except OSError as error:  # serving matters more
            print(f"engine: cannot write {self.path}: {error}", flush=True)
