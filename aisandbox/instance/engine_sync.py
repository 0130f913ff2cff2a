"""`aisandbox engine-sync`: restarts the engine when it serves something else than it should."""

from __future__ import annotations

from aisandbox.instance import files, systemd
from aisandbox.instance.engine_files import ConfigError, read_config
from aisandbox.instance.places import Places


def needed(places: Places, units: tuple[systemd.Unit, ...]) -> bool:
    """Whether the engine must be restarted to serve what `engine.json` says.

    An engine that still waits for its first configuration takes it by itself. One that could not serve what it was
    asked for is given another chance: the model step ran again, so the cause may be gone.
    """
    try:
        wanted = read_config(places.engine)
    except ConfigError:
        return False  # the engine says so itself
    if wanted is None:
        return False
    if any(unit.name == systemd.VLLM and unit.active == "failed" for unit in units):
        return True
    report = files.read_json(places.status("engine")) or {}
    taken = report.get("config")
    return bool(taken) and (taken != wanted.digest or report.get("state") == "failed")


def sync(places: Places) -> bool:
    """Restart the engine if needed. Returns whether it was."""
    restart = needed(places, systemd.units((systemd.VLLM,)))
    if restart:
        systemd.restart(systemd.VLLM)
    return restart
