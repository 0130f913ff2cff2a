"""What is served instead: the one owner of that decision. Standard library only.

The model step asks `ordered` for the candidates, best first: the model that was asked for, the same with less memory,
what was served before, the embedded guide, and the guide without a GPU. The engine asks `Memory` for the next start:
which of them, started in which way, with which further arguments; and tells it why one failed.

The memory of failures outlives the process in a file below /run, so that a model that failed is not tried again
and again while its fallback serves. It is forgotten with a reboot and with every start that is a person's wish.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import floor
from pathlib import Path
from typing import Any, Literal, Self

from aisandbox.instance import files
from aisandbox.instance.deployment import Deployment, Serving
from aisandbox.instance.problem import SET
from aisandbox.instance.run.container.catalogue import RESTARTS

UNIT = "vllm.service"
VARIABLE = "AISANDBOX_ENGINE_MEMORY"
"""Hands the memory to the next program of the same process, even where its file cannot be written."""

CONTEXT, SEQUENCES, UTILIZATION = "--max-model-len", "--max-num-seqs", "--gpu-memory-utilization"
"""vLLM's arguments that decide how much memory it needs."""
RETRY_CONTEXT = 8192
"""Context of the same model with less, where nothing better is known."""
RETRY_CONVERSATIONS = 16
"""Conversations at once of the same model with less; vLLM's default, 256 and more, needs memory for each."""
FEW_CONVERSATIONS = 64
"""Conversations at once of a second start."""
MOST_UTILIZATION, LEAST_UTILIZATION = 0.95, 0.3

Mode = Literal["fast", "plain"]
Blame = Literal["model", "memory", "machine", "unknown"]
"""`model`: starting it another way cannot help. `memory`: asking for less may. `machine`: no other model would fare
better."""


# Candidates


def ordered(
    asked: Serving | None, less: Serving | None, before: Sequence[Serving], guide: Serving | None, gpus: bool
) -> tuple[Serving, ...]:
    """What the engine is to serve, best first.

    Args:
        asked: the model that was asked for; None when it cannot be had.
        less: the same with less memory.
        before: what the engine can serve of what it was told until now.
        guide: the embedded model.
        gpus: whether it is served from GPUs, which may fail.
    """
    found = [one for one in (asked, less) if one]
    others = [one for one in before if not asked or one.folder != asked.folder]
    found += others[:1] if asked else others
    if guide and guide.folder not in {one.folder for one in found}:
        found.append(guide)
    if guide and gpus and found:
        found.append(on_processor(guide))
    return tuple(found)


def on_processor(guide: Serving) -> Serving:
    """The embedded model as the CUDA flavour serves it without a GPU; vLLM's arguments are not for it."""
    return replace(guide, args=(), processor=True)


def served_before(located: Deployment | None, report: Mapping[str, Any]) -> tuple[Serving, ...]:
    """What the engine was told to serve until now and can serve, best first, by what it last reported."""
    told = located.candidates if located else ()
    found = tuple(one for one in told if Path(one.folder).is_dir() and not one.processor)
    if report.get("state") != "failed":
        return found
    # The engine cannot serve what it was asked for, and says what it serves instead.
    serves = tuple(one for one in found if one.model == report.get("serving"))
    return serves + tuple(one for one in found if one not in serves and one.folder != told[0].folder)


# Less memory


def halved(tokens: int) -> int:
    """Half of a context that was too long."""
    return max(tokens // 2, 1)


def less_context(estimated: int | None, most: int, least: int) -> int | None:
    """Tokens for the same model with less memory; None when it would be of no use.

    Args:
        estimated: tokens that are expected to fit.
        most: tokens that were asked for, or that the model was made for.
        least: tokens below which a model is of no use.
    """
    fits = min(estimated or RETRY_CONTEXT, most)
    # An estimate that is well below what was asked for needs no further margin.
    tokens = fits if fits <= most // 2 else halved(fits)
    tokens = 1 << max(tokens, 1).bit_length() - 1
    return tokens if tokens >= min(least, most) else None


def with_less(serving: Serving, tokens: int, own: tuple[str, ...], gpus: bool) -> Serving:
    """The same model with that context, fewer conversations and, on GPUs, no CUDA graphs. `own` arguments go on."""
    args = (*serving.args, CONTEXT, str(tokens), SEQUENCES, str(RETRY_CONVERSATIONS))
    fix = f"Choose a context that fits: {SET} max_model_len={tokens}"
    return replace(serving, args=(*args, *(("--enforce-eager",) if gpus else ()), *own), fix=fix)


def context(serving: Serving) -> int | None:
    """Tokens of context that were asked for: by the arguments, else by the model's own configuration."""
    if asked := argument(serving, CONTEXT):
        return int(asked) if asked.isdecimal() else None
    try:
        config: Any = json.loads((Path(serving.folder) / "config.json").read_bytes())
        for part in (config, config.get("text_config") or {}):
            if isinstance(tokens := part.get("max_position_embeddings"), int):
                return tokens
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    return None


def argument(serving: Serving, flag: str) -> str:
    """The argument's last value; empty when it is not given."""
    found = ""
    for position, arg in enumerate(serving.args):
        key, equals, value = arg.partition("=")
        if key == flag:
            found = value if equals else "".join(serving.args[position + 1 : position + 2])
    return found


def half_the_context(serving: Serving) -> tuple[str, ...]:
    """Arguments of a second start, for want of memory."""
    asked = context(serving)
    return (CONTEXT, str(halved(asked)) if asked and asked > 1 else "auto")


def fitting_context(asked: int, estimated: int) -> tuple[str, ...]:
    """The context that vLLM estimates to fit; without an estimate, half of what was asked for."""
    return (CONTEXT, str(estimated or halved(asked)))


def free_memory(serving: Serving, free: float, total: float) -> tuple[str, ...]:
    """What other programs have left; nothing where that is too little."""
    part = floor(100 * free / total - 2) / 100 if total else 0.0
    return (UTILIZATION, f"{part:.2f}", *half_the_context(serving)) if part >= LEAST_UTILIZATION else ()


def more_memory(serving: Serving) -> tuple[str, ...]:
    """A larger part of the GPU for vLLM, and less to hold in it."""
    return (UTILIZATION, str(MOST_UTILIZATION), SEQUENCES, str(FEW_CONVERSATIONS), *half_the_context(serving))


def less_memory(serving: Serving) -> tuple[str, ...]:
    """A smaller part of the GPU for vLLM, and less to hold in it."""
    part = max(float(argument(serving, UTILIZATION) or 0.9) - 0.1, LEAST_UTILIZATION)
    return (UTILIZATION, f"{part:.2f}", SEQUENCES, str(FEW_CONVERSATIONS), *half_the_context(serving))


# Attempts


@dataclass(frozen=True)
class Cause:
    """Why a model is not served."""

    message: str
    """A clause that continues "… cannot be served: "."""
    fix: str
    blame: Blame = "unknown"
    retry: tuple[str, ...] = ()
    """Further arguments for vLLM with which one more start is worth it."""


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

    candidate: Serving
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

    def record(self, candidate: Serving) -> Record:
        return self.records.setdefault(candidate.id, Record())

    def next(self, deployment: Deployment, plain: bool = False) -> Attempt | None:
        """The first start that is worth it; None when everything has failed."""
        for candidate in deployment.attempts:
            record = self.record(candidate)
            if not record.failed:
                return Attempt(candidate, "plain" if plain or record.fast or candidate.processor else "fast", record)
        return None

    def failed(self, attempt: Attempt, cause: Cause, deployment: Deployment) -> None:
        """Learn from a start that failed before it served."""
        record = attempt.record
        alike = [one for one in deployment.attempts if one.processor == attempt.candidate.processor]
        of_model = [one for one in alike if one.folder == attempt.candidate.folder]
        if attempt.mode == "fast" and cause.blame in ("unknown", "machine"):
            record.fast = cause.message
        elif cause.blame == "machine":
            # GPUs may just be late at power-on: everything is tried once more before the processor has to do.
            self._give_up(alike if self.rounds else deployment.attempts, cause)
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
        """Write it down if possible; the next program of this process is handed it anyway."""
        try:
            files.write_json(self.path, self._data())
        except OSError as error:
            print(f"engine: cannot write {self.path}: {error}", flush=True)

    @property
    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(self._data())}

    def _data(self) -> dict[str, Any]:
        return {"candidates": {key: asdict(record) for key, record in self.records.items()}, "rounds": self.rounds}

    def _give_up(self, candidates: Iterable[Serving], cause: Cause) -> None:
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
