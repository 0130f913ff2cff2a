"""What to try next: which model, which way of starting it, with which further arguments. Stdlib only.

The memory of failures outlives the process in a file below /run, so that a model that failed is not tried again
and again while its fallback serves. It is forgotten with a reboot and with every start that is a person's wish.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from aisandbox.instance import files
from aisandbox.instance.run.container.catalogue import RESTARTS
from aisandbox.instance.serve.engine_causes import Cause
from aisandbox.instance.serve.engine_files import Candidate, EngineConfig, Mode, write_json

UNIT = "vllm.service"
VARIABLE = "AISANDBOX_ENGINE_MEMORY"
"""Hands the memory to the next program of the same process, even where its file cannot be written."""


@dataclass
class Record:
    """What happened to one candidate."""

    fast: str = ""
    """Why it could not be started the fast way."""
    failed: str = ""
    """Why it cannot be served at all."""
    fix: str = ""
    retry: list[str] = field(default_factory=list)
    """Further arguments of its second chance."""
    why: str = ""
    """Why it needed them."""


@dataclass(frozen=True)
class Attempt:
    """One start."""

    candidate: Candidate
    mode: Mode
    record: Record

    @property
    def args(self) -> tuple[str, ...]:
        return (*self.candidate.args, *self.record.retry)


class Memory:
    """The records of the candidates, by their ids."""

    def __init__(self, path: Path, records: Mapping[str, Record] | None = None, rounds: int = 0) -> None:
        self.path = path
        self.records = dict(records or {})
        self.rounds = rounds
        """How often everything has failed."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """What this process knows, else what the one before it left, unless a person started this one."""
        if (handed := os.environ.pop(VARIABLE, "")) or path.exists():
            try:
                data = json.loads(handed) if handed else files.read_json(path) or {}
                if handed or not started_by_a_person():
                    records = {key: Record(**record) for key, record in data["candidates"].items()}
                    return cls(path, records, int(data["rounds"]))
            except (ValueError, LookupError, TypeError, AttributeError):
                pass  # half of a file, or one of another version
        return cls(path)

    def record(self, candidate: Candidate) -> Record:
        return self.records.setdefault(candidate.id, Record())

    def next(self, config: EngineConfig, plain: bool = False) -> Attempt | None:
        """The first start that is worth it; None when everything has failed."""
        for candidate in config.candidates:
            record = self.record(candidate)
            if not record.failed:
                return Attempt(candidate, "plain" if plain or record.fast or candidate.processor else "fast", record)
        return None

    def failed(self, attempt: Attempt, cause: Cause, config: EngineConfig) -> None:
        """Learn from a start that failed before it served."""
        record = attempt.record
        alike = [one for one in config.candidates if one.processor == attempt.candidate.processor]
        of_model = [one for one in alike if one.model == attempt.candidate.model]
        if attempt.mode == "fast" and cause.blame in ("unknown", "machine"):
            record.fast = cause.message
        elif cause.blame == "machine":
            # GPUs may just be late at power-on: everything is tried once more before the processor has to do.
            self._give_up(alike if self.rounds else config.candidates, cause)
        elif cause.retry and not record.retry:
            record.retry, record.why, record.fix = list(cause.retry), cause.message, cause.fix
        elif record.retry:
            # The first start says more: it is what was asked for. Once with less was enough.
            told = Cause(f"{record.why}; with less, {cause.message}", record.fix)
            self._give_up(of_model, told)
        elif cause.blame == "model":
            self._give_up(of_model, cause)
        else:
            self._give_up((attempt.candidate,), cause)
        self.save()

    def start_over(self) -> None:
        """After everything has failed: try it all again, but not what is known not to start the fast way."""
        self.rounds += 1
        for record in self.records.values():
            record.failed, record.retry, record.why = "", [], ""
        self.save()

    def save(self) -> None:
        write_json(self.path, self._data())

    @property
    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(self._data())}

    def _data(self) -> dict[str, Any]:
        return {"candidates": {key: asdict(record) for key, record in self.records.items()}, "rounds": self.rounds}

    def _give_up(self, candidates: Iterable[Candidate], cause: Cause) -> None:
        for candidate in candidates:
            record = self.record(candidate)
            record.failed, record.fix = cause.message, cause.fix


def started_by_a_person() -> bool:
    """Whether this start is not one by itself after a crash; False where neither systemd nor supervisord tells."""
    if RESTARTS in os.environ:
        return os.environ[RESTARTS] == "0"
    command = ["systemctl", "show", "--property=NRestarts", "--value", UNIT]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip() == "0"
    except (OSError, subprocess.SubprocessError):
        return False
