"""`aisandbox doctor`: named checks of the whole instance, each with what is wrong, why, and what mends it.

They run side by side, and none can hold up the others: each has the same few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from aisandbox.instance.observe.probes import machine, model, network, services
from aisandbox.instance.observe.probes.instance import Instance
from aisandbox.instance.observe.probes.registry import PROBES, Finding, Probe, failed
from aisandbox.manifest import Part

TIMEOUT_S = 15.0
AREAS = (machine, services, model, network)
"""Modules of probes, in the order in which their findings are shown."""


class Result(Part):
    """What one check came to."""

    check: str
    findings: tuple[Finding, ...]


class Diagnosis(Part):
    """What all checks came to."""

    results: tuple[Result, ...]
    complete: bool
    """Whether root asked, for whom no check has to be left out."""

    @property
    def healthy(self) -> bool:
        return not any(finding.severity == "failed" for result in self.results for finding in result.findings)


def probes() -> tuple[Probe, ...]:
    """All of the registry, in the order in which they are shown."""
    return tuple(probe for area in AREAS for probe in PROBES.values() if probe.look.__module__ == area.__name__)


def examine(instance: Instance, chosen: Sequence[Probe] | None = None, timeout_s: float = TIMEOUT_S) -> Diagnosis:
    """Run the probes side by side. One that fails by itself, or takes too long, is a finding, too."""
    chosen = probes() if chosen is None else chosen
    found: dict[str, tuple[Finding, ...]] = {}

    def run(probe: Probe) -> None:
        try:
            found[probe.name] = tuple(probe.look(instance))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            found[probe.name] = (failed("The check itself failed.", "Please report this.", reason),)

    # Daemons, so that a check that hangs cannot keep the program from ending.
    threads = [threading.Thread(target=run, args=(probe,), daemon=True) for probe in chosen]
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    late = (failed(f"No answer within {timeout_s:.0f} s.", "Run it again; if it stays so, something hangs there."),)
    results = tuple(Result(check=probe.name, findings=found.get(probe.name, late)) for probe in chosen)
    return Diagnosis(results=results, complete=instance.root)
