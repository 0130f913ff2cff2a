"""What a run of the suites cost: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.runner.run import Run, Timing

SLOWEST = 10


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def table(runs: Sequence[Run], seconds: float, busy: float) -> str:
    """Suites with their costs, then the slowest tests and fixtures.

    Args:
        seconds: duration of the whole run.
        busy: processor seconds that the host spent meanwhile, whoever spent them.
    """
    head = ("suite", "tests", "failed", "seconds", "CPU s", "waiting s")
    rows = [
        (
            run.suite.name, str(len(run.outcomes)), str(len(run.failed)), f"{run.seconds:.0f}",
            _number(run.account.seconds), _number(run.account.waiting),
        )
        for run in runs
    ]  # fmt: skip
    rows.append(
        (
            "all", str(sum(len(run.outcomes) for run in runs)), str(sum(len(run.failed) for run in runs)),
            f"{seconds:.0f}", f"{busy:.0f}", "",
        )
    )  # fmt: skip
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in ([*zip(row, widths, strict=True)] for row in (head, *rows))
    ]
    lines += ["", f"The {SLOWEST} slowest tests (seconds, set-up excluded):", *_slowest(run.tests for run in runs)]
    lines += ["", f"The {SLOWEST} slowest fixtures:", *_slowest(run.fixtures for run in runs)]
    return "\n".join(lines)


def write(folder: Path, runs: Sequence[Run], seconds: float, busy: float) -> None:
    """Write `report.txt` and `report.json`."""
    (folder / "report.txt").write_text(table(runs, seconds, busy) + "\n")
    facts = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(busy, 1),
        "suites": {
            run.suite.name: {
                "tests": len(run.outcomes),
                "failed": run.failed,
                "exit_status": run.exit_status,
                "seconds": round(run.seconds, 1),
                "cpu_seconds": run.account.seconds,
                "waiting_seconds": run.account.waiting,
                "test_seconds": {timing.name: timing.seconds for timing in run.tests},
                "fixture_seconds": [[timing.name, timing.seconds] for timing in run.fixtures],
            }
            for run in runs
        },
    }
    (folder / "report.json").write_text(json.dumps(facts, indent=1) + "\n")


def failures(run: Run) -> str:
    """The part of a suite's log that explains its failures."""
    text = run.log.read_text(errors="replace")
    starts = [position for mark in ("= ERRORS =", "= FAILURES =") if (position := text.find(mark)) >= 0]
    return text[text.rfind("\n", 0, min(starts)) + 1 :] if starts else text[-8000:]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _slowest(timings: Iterable[list[Timing]]) -> list[str]:
    every = [timing for group in timings for timing in group]
    every.sort(key=lambda timing: -timing.seconds)
    return [f"{timing.seconds:7.1f}  {timing.name}" for timing in every[:SLOWEST]]
