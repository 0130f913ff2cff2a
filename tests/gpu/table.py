"""The kit's one report, as Markdown for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.gpu.compare import Check, Gain, gains
from tests.gpu.figures import STREAMS, Row
from tests.gpu.logs import PHASES, Said

COLUMNS = (
    "run", "state", "boot s", *(f"{phase} s" for phase in PHASES), "weights GiB/s",
    *(f"tok/s at {streams}" for streams in STREAMS), "memory GiB", "power W", "note",
)  # fmt: skip
GOOD = {True: "yes", False: "NO", None: "not proved"}


@dataclass
class Report:
    """What was found so far."""

    machine: dict[str, str]
    """What ran where, by name."""
    rows: list[Row] = field(default_factory=list)
    hardware: list[Check] = field(default_factory=list)
    sizing: list[Check] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """What failed or missed its bar."""
        missed = [check.what for check in (*self.hardware, *self.sizing) if check.good is False]
        return [*(row.name for row in self.rows if row.state == "failed"), *missed]

    def markdown(self) -> str:
        """All tables."""
        parts = [
            "# AI Sandbox on this machine\n\n" + "\n".join(f"- {name}: {text}" for name, text in self.machine.items()),
            "## Starts and speed\n\n" + _table(COLUMNS, (_cells(row) for row in self.rows)),
            "## Hardware as we find it\n\n" + _checks(self.hardware, "nvidia-smi"),
            "## Sizing as we promise it\n\n" + _checks(self.sizing, "vLLM"),
            "## Gains: above 1 is faster\n\n"
            + _table(("what", "run", "beside", "factor"), (_gain(gain) for gain in gains(self.rows))),
            "Failed or outside its bar: " + ("; ".join(self.failures) or "nothing"),
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write `report.md` and `report.json`."""
        (folder / "report.md").write_text(self.markdown())
        data = {**asdict(self), "gains": [asdict(gain) for gain in gains(self.rows)], "failures": self.failures}
        (folder / "report.json").write_text(json.dumps(data, indent=1) + "\n")


def _checks(checks: Sequence[Check], truth: str) -> str:
    if not checks:
        return "Nothing was compared."
    return _table(("what", "ours", truth, "difference", "good"), (_check(check) for check in checks))


def _check(check: Check) -> tuple[str, ...]:
    difference = "" if check.percent is None else f"{check.percent:+.1f} %"
    return check.what, check.ours, check.truth, difference, GOOD[check.good]


def _gain(gain: Gain) -> tuple[str, ...]:
    return gain.what, gain.run, gain.beside, f"{gain.factor:.2f}"


def _cells(row: Row) -> tuple[str, ...]:
    figures = row.figures
    if not figures:
        return row.name, row.state, *[""] * (len(COLUMNS) - 3), row.note
    return (
        row.name,
        row.state,
        _figure(figures.first_token_s, 1),
        *(_figure(figures.phases.get(phase), 1) for phase in PHASES),
        _figure(figures.weights_gib_s, 2),
        *(_figure(figures.tokens_s.get(streams), 0) for streams in STREAMS),
        _figure(figures.memory_gib, 1),
        _figure(figures.watts, 0),
        "; ".join(filter(None, (row.note, *_remarks(figures.said)))),
    )


def _remarks(said: Said) -> Iterator[str]:
    """What vLLM says of the parts of a phase."""
    if said.compiling_s is not None:
        yield f"compiled for {said.compiling_s:.1f} s"
    if said.graphs_s is not None:
        yield f"graphs {said.graphs_s:.0f} s, {said.graphs_gib:.2f} GiB"


def _figure(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
