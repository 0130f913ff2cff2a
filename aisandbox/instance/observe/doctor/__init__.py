"""`aisandbox doctor`: named checks of the whole instance, each with what is wrong, why, and what mends it.

They run side by side, and none can hold up the others: each has the same few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from aisandbox.instance.observe.doctor import machine, model, network, services
from aisandbox.instance.observe.doctor.finding import Finding, Instance, Severity, failed
from aisandbox.manifest import Part

__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "Instance", "Result", "Severity", "examine"]

TIMEOUT_S = 15.0

Check = Callable[[Instance], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "gpu": machine.gpu,
    "driver": machine.driver,
    "flavour": machine.flavour,
    "disk": machine.disk,
    "memory": machine.memory,
    "clock": machine.clock,
    "cloud-init": machine.cloud_init,
    "configuration": services.configuration,
    "units": services.units,
    "progress": services.progress,
    "ports": services.ports,
    "firewall": services.firewall,
    "secrets": services.secrets,
    "sandbox": services.sandbox,
    "model": model.cache,
    "hub": network.hub,
    "domain": network.domain,
    "certificate": network.certificate,
}
"""In the order in which they are shown."""


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


def examine(instance: Instance, checks: Mapping[str, Check] = CHECKS, timeout_s: float = TIMEOUT_S) -> Diagnosis:
    """Run the checks side by side. One that fails by itself, or takes too long, is a finding, too."""
    found: dict[str, tuple[Finding, ...]] = {}

    def run(name: str, check: Check) -> None:
        try:
            found[name] = tuple(check(instance))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            found[name] = (failed("The check itself failed.", "Please report this.", reason),)

    # Daemons, so that a check that hangs cannot keep the program from ending.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in checks.items()]
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    late = (failed(f"No answer within {timeout_s:.0f} s.", "Run it again; if it stays so, something hangs there."),)
    results = tuple(Result(check=name, findings=found.get(name, late)) for name in checks)
    return Diagnosis(results=results, complete=instance.root)
