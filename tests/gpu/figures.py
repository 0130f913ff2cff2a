"""What one run of the kit has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.gpu.logs import Said

STREAMS = (1, 8, 64)
"""Answers that are written at once when speed is measured."""

State = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class Figures:
    """One start and what followed. Times in seconds; memory and power of all GPUs together."""

    first_token_s: float
    """From the start of the server's process."""
    phases: Mapping[str, float]
    said: Said
    weights_gib_s: float | None = None
    """Size of the weight files over the time that vLLM took to load them."""
    tokens_s: Mapping[int, float] = field(default_factory=dict)
    """Tokens a second of all streams together, by their number."""
    memory_gib: float | None = None
    watts: float | None = None
    note: str = ""


class Unfinished(Exception):
    """A run failed after its start; the message says why, and the figures are what was found until then."""

    def __init__(self, figures: Figures, cause: str) -> None:
        super().__init__(cause)
        self.figures = figures


@dataclass(frozen=True)
class Row:
    """A line of the table. The note says why a run failed or was skipped; figures may be there up to a failure."""

    name: str
    state: State
    note: str = ""
    figures: Figures | None = None
