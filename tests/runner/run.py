"""One suite as a process: its output, its events as they come, and its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aisandbox.manifest import REPOSITORY
from tests.runner.cpu import Account
from tests.runner.suites import Suite

INTERRUPT_SECONDS = 180
"""How long an interrupted suite may take to remove its machines and containers."""
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made there
MEMORY_BYTES = 4 * 2**30
"""Free memory without which temporary files go to the disk."""


@dataclass(frozen=True)
class Timing:
    """How long one test or fixture took."""

    name: str
    seconds: float


class Run:
    """A running or finished suite; `outcomes` holds its tests by name."""

    def __init__(self, suite: Suite, folder: Path, arguments: list[str]) -> None:
        self.suite = suite
        self.log = folder / f"{suite.name}.log"
        self.collected = 0
        self.outcomes: dict[str, str] = {}
        self.tests: list[Timing] = []
        self.fixtures: list[Timing] = []
        self.seconds = 0.0
        self.exit_status: int | None = None
        self._events = folder / f"{suite.name}.events"
        self._read_to = 0
        self._events.unlink(missing_ok=True)
        self.account = Account(suite.name)
        command = [sys.executable, "-m", "pytest", "-p", "tests.runner.plugin", *suite.paths, *arguments]
        command += [f"--junitxml={folder / suite.name}.xml"]
        if suite.processes:
            command += ["--numprocesses", str(suite.processes), "--dist", "worksteal"]
        # Removed unless the suite fails. Its own: pytest's clean-up at the end of one suite disturbs others in the
        # same folder.
        self.temporary = _temporary_folder(suite.in_memory)
        # Started from a worker of pytest-xdist, as by the runner's own tests, it is none itself.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"AISANDBOX_TEST_EVENTS": str(self._events), "PYTEST_DEBUG_TEMPROOT": self.temporary}
        self._start = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=self.account.join,
            )  # fmt: skip

    @property
    def failed(self) -> list[str]:
        return [name for name, outcome in self.outcomes.items() if outcome == "failed"]

    def count(self, outcome: str) -> int:
        return sum(1 for found in self.outcomes.values() if found == outcome)

    def poll(self) -> list[str]:
        """Take in what has happened since the last call; returns the names of tests that failed meanwhile."""
        self.account.sample()
        ended = self._process.poll() is not None
        before = set(self.failed)
        self._take_events()
        if ended:
            self.exit_status = self._process.returncode
            self.seconds = time.monotonic() - self._start
            self.account.close()
            self._events.unlink(missing_ok=True)
            if not self.exit_status:
                shutil.rmtree(self.temporary, ignore_errors=True)
        return [name for name in self.failed if name not in before]

    def interrupt(self) -> None:
        """Stop it as Ctrl-C would, and wait until it has cleaned up."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
            try:
                self._process.wait(INTERRUPT_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self.poll()

    def _take_events(self) -> None:
        if not self._events.exists():
            return
        with self._events.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "collected":
                self.collected = event["tests"]
            case "fixture":
                self.fixtures.append(Timing(event["name"], event["seconds"]))
            case "test":
                name, outcome = event["name"], event["outcome"]
                if self.outcomes.get(name) != "failed":
                    self.outcomes[name] = outcome
                if event["when"] == "call":
                    self.tests.append(Timing(name, event["seconds"]))


def _temporary_folder(in_memory: bool) -> str:
    """A folder whose name is short, as those of sockets must be, and which servers of other users can enter."""
    place = MEMORY if in_memory and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES else None
    folder = tempfile.mkdtemp(prefix="t-", dir=place)
    Path(folder).chmod(0o755)
    return folder
