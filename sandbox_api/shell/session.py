"""Sessions: commands that follow one another."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from sandbox_api.family import Snapshot
from sandbox_api.shell.command import Command
from sandbox_api.shell.state import State

MARKS_CHECKED_AFTER = 512
"""Commands after which the marks that no process carries any more are dropped."""


@dataclass
class Session:
    """`kept`: somebody named it or asked for it, so that it stays until it is idle for long; the session of a single
    command goes with that command. `marks`: of its commands, also of those that are forgotten. Times are seconds since
    the epoch."""

    id: str
    state: State
    kept: bool
    created: float = field(default_factory=time.time)
    used: float = field(default_factory=time.time)
    commands: list[Command] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    count: int = 0
    no_change_timeout: float | None = None
    keep_links: bool = False

    @property
    def directory(self) -> Path:
        return self.state.directory

    @property
    def leaders(self) -> list[int]:
        """Shells of its commands that have not been reaped."""
        return [command.leader for command in self.commands if command.leader is not None]

    def add(self, command: Command) -> None:
        self.commands.append(command)
        self.marks.add(command.mark)
        self.count += 1
        self.used = time.time()
        if self.count % MARKS_CHECKED_AFTER == 0:
            self.marks &= Snapshot().marks

    @property
    def latest(self) -> Command | None:
        return self.commands[-1] if self.commands else None

    @property
    def running(self) -> Command | None:
        return next((command for command in reversed(self.commands) if command.running), None)
