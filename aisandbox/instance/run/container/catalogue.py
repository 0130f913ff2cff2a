"""What supervisord runs: `programs.json`, rendered from the service catalogue by the role `container`.

Read by the launcher of every program: the standard library must do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

RESTARTS = "AISANDBOX_RESTARTS"
"""Variable that tells a program how often it has been started again by itself."""


@dataclass(frozen=True)
class Program:
    """One program. Commands are argument vectors."""

    command: list[str]
    user: str = "root"
    real_user: int | None = None
    """Number of who it really is while it acts as `user`."""
    home: str = "/"
    environment: dict[str, str] | None = None
    environment_files: Sequence[str] = ()
    """In the format of systemd; the last one wins, and one with a `-` before it may be missing."""
    inherit: Sequence[str] = ()
    """Beginnings of the names of variables that it has from the container's own environment."""
    prepare: list[str] | None = None
    """To be run before it, in the same way; where that fails, it does not start."""
    success: list[str] | None = None
    """To be run as root once it has ended well."""
    credential: str | None = None
    """A file of root's that it may read a copy of, in the folder that `CREDENTIALS_DIRECTORY` names."""
    unless: str | None = None
    """While this file exists, it does not start."""
    umask: str = "0077"
    nice: int = 0
    oom_score_adjust: int = 0
    restart_delay_s: float = 2

    def __post_init__(self) -> None:
        # Ports come as numbers.
        for name in ("command", "prepare", "success"):
            if words := getattr(self, name):
                object.__setattr__(self, name, [str(word) for word in words])
        variables = {name: str(value) for name, value in (self.environment or {}).items()}
        object.__setattr__(self, "environment", variables)


@dataclass(frozen=True)
class Catalogue:
    """All programs by name, and the places of those who run them."""

    programs: dict[str, Program]
    socket: str
    """Where supervisord listens, for root."""
    logs: Path
    """Folder of the programs' logs."""
    runs: Path
    """Folder where the launcher counts the runs of each program."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The catalogue in that file.

        Raises:
            OSError, ValueError, TypeError: the image is damaged.
        """
        told: dict[str, Any] = json.loads(path.read_bytes())
        programs = {name: Program(**program) for name, program in told["programs"].items()}
        return cls(programs, told["socket"], Path(told["logs"]), Path(told["runs"]))

    @classmethod
    def here(cls) -> Self:
        """The catalogue of this container: beside `lib/`, where this package lies."""
        return cls.read(Path(__file__).resolve().parents[5] / "container" / "programs.json")

    def log(self, program: str) -> Path:
        return self.logs / f"{program}.log"

    def run_count(self, program: str) -> Path:
        return self.runs / f"{program}.json"


@dataclass(frozen=True)
class Runs:
    """The starts of a program since it was last started by somebody."""

    times: tuple[float, ...] = ()
    """When supervisord started it again by itself, on `clock`; the last ones only."""
    restarts: int = 0
    """How often that was."""
    began: float = 0
    """When it was last started, on the same clock."""

    @classmethod
    def read(cls, path: Path) -> Runs | None:
        """What is known; None before the first start."""
        try:
            told = json.loads(path.read_bytes())
            return cls(tuple(told["times"]), told["restarts"], told["began"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"times": self.times, "restarts": self.restarts, "began": self.began}))
        partial.replace(path)


def clock() -> float:
    """Seconds on a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
