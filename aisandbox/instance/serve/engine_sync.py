"""`aisandbox engine-sync`: restarts the engine when it serves something else than it should."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.deployment import DocumentError
from aisandbox.instance.places import Places
from aisandbox.instance.run import services
from aisandbox.instance.serve.engine_files import read


def needed(places: Places, units: tuple[services.Unit, ...]) -> bool:
    """Whether the engine must be restarted to serve what the located deployment says.

    An engine that still waits for its first document takes it by itself. One that could not serve what it was
    asked for is given another chance if that was before the model step ran again: the cause may be gone.
    """
    try:
        wanted = read(places.located)
    except DocumentError:
        return False  # the engine says so itself
    if wanted is None:
        return False
    by_name = {unit.name: unit for unit in units}
    if services.VLLM in by_name and by_name[services.VLLM].active == "failed":
        return True
    report = files.read_json(places.status("engine")) or {}
    taken = report.get("config")
    if not taken:
        return False
    return taken != wanted.digest or (report.get("state") == "failed" and _before(report, by_name.get(services.MODEL)))


def _before(report: dict[str, Any], model_step: services.Unit | None) -> bool:
    """Whether what is reported happened before the model step last began."""
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(report["since"])).total_seconds()
    except (LookupError, TypeError, ValueError):
        return True
    return model_step is None or model_step.entered_s is None or age > model_step.entered_s


def sync(places: Places) -> bool:
    """Restart the engine if needed. Returns whether it was."""
    restart = needed(places, services.units((services.VLLM, services.MODEL)))
    if restart:
        services.restart(services.VLLM)
    return restart
