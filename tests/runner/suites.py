"""The test suites: what each consists of, what it shares, and what it must not run beside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """A part of the tests that runs as one process."""

    name: str
    paths: tuple[str, ...]
    """What pytest collects."""
    seconds: float
    """Expected duration on two cores with warm caches; suites start longest first."""
    processes: int = 0
    """Worker processes of pytest-xdist; 0 runs the tests in the suite's own process."""
    in_memory: bool = False
    """Whether its temporary files, of which it makes many small ones, lie in memory where there is enough."""
    apart_from: frozenset[str] = frozenset()
    """Suites that disturb this one, or are disturbed by it."""


SUITES = (
    Suite("unit", ("tests/unit",), 120, processes=4, in_memory=True),
    Suite("fresh", ("tests/fresh",), 500),
    Suite("image", ("tests/image",), 740, apart_from=frozenset({"marketplace"})),
    Suite("gateway", ("tests/gateway",), 330),
    Suite("sandbox", ("tests/sandbox",), 390),
    Suite("boot", ("tests/boot",), 900),
    Suite("e2e", ("tests/e2e",), 950),
    Suite("marketplace", ("tests/marketplace",), 650),
    Suite("roles", ("tests/roles",), 540),
    Suite("container", ("tests/container",), 300),
)


def named(name: str) -> Suite | None:
    return next((suite for suite in SUITES if suite.name == name), None)
