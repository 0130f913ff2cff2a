"""What vLLM writes while it starts: what it measured, and when it had come how far."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARKS = (
    ("program", "Initializing a V1 LLM engine"),
    ("device", "Initializing model took"),
    ("weights", "Loading weights took"),
    ("profile", "KV cache size:"),
    ("warm-up", "init engine ("),
    ("API", "Application startup complete"),
)
"""Each phase of a start, and what vLLM writes at its end. What follows the last one is `first token`."""
LAST = "first token"
PHASES = (*(phase for phase, _ in MARKS), LAST)

_WEIGHTS = re.compile(r"Model loading took ([\d.]+) GiB")
_LOADING = re.compile(r"Loading weights took ([\d.]+) seconds")
_MEMORY = re.compile(r"Available KV cache memory: (-?[\d.]+) GiB")
_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens per request")
_GRAPHS = re.compile(r"Graph capturing finished in ([\d.]+) secs, took (-?[\d.]+) GiB")
_COMPILING = re.compile(r"init engine \([^)]*\) took [\d.]+ s \(compilation: ([\d.]+) s")


@dataclass(frozen=True)
class Said:
    """vLLM's own figures of one start, of the first of several GPUs; None where it says nothing."""

    weights_gib: float | None
    loading_s: float | None
    """Reading the weights into memory."""
    cache_gib: float | None
    cache_tokens: int | None
    context: int | None
    """Longest context of one request, in tokens."""
    graphs_s: float | None
    graphs_gib: float | None
    compiling_s: float | None


def read(lines: Iterable[str]) -> Said:
    """The figures in the lines of a log."""
    text = "\n".join(lines)
    tokens, context = _groups(_TOKENS, text, 2)
    graphs_s, graphs_gib = _groups(_GRAPHS, text, 2)
    return Said(
        weights_gib=_number(*_groups(_WEIGHTS, text, 1)),
        loading_s=_number(*_groups(_LOADING, text, 1)),
        cache_gib=_number(*_groups(_MEMORY, text, 1)),
        cache_tokens=_whole(tokens),
        context=_whole(context),
        graphs_s=_number(graphs_s),
        graphs_gib=_number(graphs_gib),
        compiling_s=_number(*_groups(_COMPILING, text, 1)),
    )


def _groups(pattern: re.Pattern[str], text: str, count: int) -> Sequence[str | None]:
    found = pattern.search(text)
    return found.groups() if found else [None] * count


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text.replace(",", ""))


def phases(lines: Iterable[tuple[float, str]], began: float, token: float) -> dict[str, float]:
    """Seconds of each phase from `began` to the first token.

    A phase whose end is not in the log is left out; its time counts as the next one's.
    """
    lines = list(lines)
    found: dict[str, float] = {}
    last = began
    for phase, mark in MARKS:
        arrived = next((time for time, line in lines if last <= time <= token and mark in line), None)
        if arrived is not None:
            found[phase] = arrived - last
            last = arrived
    return {**found, LAST: token - last}
