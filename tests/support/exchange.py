"""A machine without services, and a judge of releases, for tests that exchange them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aisandbox.instance.keep.upgrade.health import Health, Probe
from aisandbox.instance.keep.upgrade.services import Services, Unfit
from tests.support.releases import Rig


class Quiet(Services):
    """Systemd of a machine that has no services: everything works at once, unless a test says otherwise."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def active(self, units: Sequence[str]) -> tuple[str, ...]:
        return ()

    def failed(self) -> tuple[str, ...]:
        return ()

    def stop(self, units: Sequence[str]) -> None:
        self.done.append(f"stop {' '.join(units)}")

    def settle(self, paths: Sequence[str]) -> None:
        self.done.append("settle")

    def start(self, units: Sequence[str]) -> None:
        self.done.append(f"start {' '.join(units)}")

    def broken(self, units: Sequence[str]) -> tuple[str, str] | None:
        return None

    def reload_early(self) -> None:
        self.done.append("reload early")


class Judge(Probe):
    """Finds every release healthy but those that a test names."""

    def __init__(self, rig: Rig, unfit: Sequence[str] = ()) -> None:
        self._rig, self._unfit = rig, unfit

    def look(self, ports: Any, since: str = "") -> Health:
        return Health(True, True, True, ("m",), True, (), "")

    def wait(self, before: Health, ports: Any, units: Sequence[str], seconds: float, say: Any) -> None:
        assert before == self.look(ports)
        if self._rig.version in self._unfit:
            raise Unfit("vllm.service does not start", "ImportError: no")
