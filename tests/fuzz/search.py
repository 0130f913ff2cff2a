"""Looks for inputs that break a property, until the time is over."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

EXAMPLES = 100
"""Inputs of one round of one property."""
SHOW_S = 10.0
SLOW_S = 10.0


class TooSlow(AssertionError):
    """An input took longer than anybody would wait."""


@dataclass(frozen=True)
class Property:
    """Something that holds for every input: `holds` raises where it does not."""

    holds: Callable[..., object]
    inputs: Mapping[str, st.SearchStrategy[Any]]
    examples: int = EXAMPLES
    seconds: float = SLOW_S
    """No input may take longer."""

    @property
    def name(self) -> str:
        return getattr(self.holds, "__name__", "property")


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Break off what takes longer, also where a regular expression does. In the main thread only."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlow(f"it took longer than {seconds:g} s")

    former = signal.signal(signal.SIGALRM, stop)
    # pytest-timeout has the same timer.
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, former)
        signal.setitimer(signal.ITIMER_REAL, left, every)


class Search:
    """One target's time, and how many inputs it has tried.

    Args:
        seconds: after them no new round begins. There is one round at least.
        say: told now and then how far it is.
        most: inputs of one property in one round.
    """

    def __init__(
        self,
        seconds: float,
        first_seed: int = 0,
        say: Callable[[str], None] = lambda _: None,
        most: int = 1000,
    ) -> None:
        self.tried = 0
        self._most = most
        self._seed = first_seed
        self._say = say
        self._end = time.monotonic() + seconds
        self._shown = time.monotonic()

    def rounds(self, properties: tuple[Property, ...]) -> None:
        """Try the properties in turn.

        Raises:
            Exception: whatever a property raised; its notes hold the smallest input that does it.
        """
        while True:
            for each in properties:
                self.once(each)
                if time.monotonic() - self._shown > SHOW_S:
                    self._shown = time.monotonic()
                    self._say(f"{self.tried} inputs, {max(0.0, self._end - self._shown):.0f} s left")
            if time.monotonic() >= self._end:
                return

    def once(self, tested: Property) -> None:
        """One round of one property, with a seed that no round before had."""

        @seed(self._seed)
        @settings(
            max_examples=min(tested.examples, self._most), deadline=None, database=None, report_multiple_bugs=False,
            phases=[Phase.explicit, Phase.generate, Phase.target, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.fixed_dictionaries(dict(tested.inputs)))
        def attempt(case: dict[str, Any]) -> None:
            self.tried += 1
            with bounded(tested.seconds):
                tested.holds(**case)

        self._seed += 1
        attempt()
