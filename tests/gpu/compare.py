"""Comparisons: what we say beside what is so, and one way to serve beside another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aisandbox.instance.fit.hardware import Hardware
from tests.gpu.estimate import Estimate
from tests.gpu.figures import Row
from tests.gpu.logs import Said
from tests.gpu.smi import Machine

WEIGHTS_BAR, CACHE_BAR = 3.0, 15.0
"""Percent by which an estimate may differ from the truth."""
ROUNDING_MIB = 60
"""`Hardware` rounds memory to tenths of a GiB."""


@dataclass(frozen=True)
class Check:
    """One fact as we tell it, beside the truth. `percent` is the difference; without a truth nothing is proved."""

    what: str
    ours: str
    truth: str
    percent: float | None
    good: bool | None


def hardware(found: Hardware, told: Machine) -> Iterator[Check]:
    """What the product finds, beside what nvidia-smi tells."""
    yield Check("driver", found.driver or "none", told.driver, None, found.driver == told.driver)
    yield Check("CUDA", found.cuda or "none", told.cuda, None, found.cuda == told.cuda)
    yield Check("fault", found.fault or "none", "none", None, found.fault is None)
    ours, theirs = len(found.gpus), len(told.cards)
    yield Check("GPUs", str(ours), str(theirs), None, ours == theirs)
    for number, (gpu, card) in enumerate(zip(found.gpus, told.cards, strict=False)):
        yield Check(f"GPU {number}", gpu.name, card.name, None, gpu.name == card.name)
        memory = gpu.memory_gib * 1024
        # With what driver and other programs have or without it: vLLM cannot take that.
        least = card.memory - card.reserved - card.used
        good = least - ROUNDING_MIB <= memory <= card.memory + ROUNDING_MIB
        percent = 100 * (memory / card.memory - 1) if card.memory else None
        truth = f"{card.memory / 1024:.1f} GiB, {card.reserved / 1024:.1f} of it the driver's"
        yield Check(f"memory of GPU {number}", f"{gpu.memory_gib:.1f} GiB", truth, percent, good)


def sizing(estimate: Estimate, said: Said) -> Iterator[Check]:
    """What our sizing promised, beside what vLLM said."""
    yield _sized("weights", estimate.weights_gib, said.weights_gib, "GiB", WEIGHTS_BAR)
    yield _sized("cache memory", estimate.cache_gib, said.cache_gib, "GiB", CACHE_BAR)
    tokens = estimate.cache_tokens(said.context) if said.context else None
    yield _sized("cache", tokens, said.cache_tokens, "tokens", CACHE_BAR)


def _sized(what: str, ours: float | None, truth: float | None, unit: str, bar: float) -> Check:
    percent = 100 * (ours / truth - 1) if ours is not None and truth else None
    good = None if percent is None else abs(percent) <= bar
    return Check(f"{what} (bar {bar:g} %)", _amount(ours, unit), _amount(truth, unit), percent, good)


def _amount(number: float | None, unit: str) -> str:
    if number is None:
        return "not said"
    return f"{number:.2f} {unit}" if unit == "GiB" else f"{number:,.0f} {unit}"


STARTS = (("engine, first", "plain, first"), ("engine, again", "plain, again"), ("preload, restart", "plain, again"))
SPEEDS = (
    ("engine, first", "plain, first"),
    ("n-gram speculation", "plain, again"),
    ("KV offload", "plain, again"),
)


@dataclass(frozen=True)
class Gain:
    """How one run does beside another: above 1 it is faster."""

    what: str
    run: str
    beside: str
    factor: float


def gains(rows: Sequence[Row]) -> Iterator[Gain]:
    """Every comparison for which both runs have figures."""
    found = {row.name: row.figures for row in rows if row.figures}
    for run, beside in STARTS:
        if run in found and beside in found:
            yield Gain("first token", run, beside, found[beside].first_token_s / found[run].first_token_s)
    for run, beside in SPEEDS:
        if run in found and beside in found:
            for streams, rate in found[run].tokens_s.items():
                if other := found[beside].tokens_s.get(streams):
                    yield Gain(f"tokens/s, {streams} at once", run, beside, rate / other)
