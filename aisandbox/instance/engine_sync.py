"""`aisandbox engine-sync`: restarts the engine when it serves something else than it should."""

from __future__ import annotations

import hashlib

from aisandbox.instance import files, systemd
from aisandbox.instance.places import Places


def config_id(content: bytes) -> str:
    """What names the content of `engine.json` in the engine's status."""
    return hashlib.sha256(content).hexdigest()


def needed(places: Places, units: tuple[systemd.Unit, ...]) -> bool:
    """Whether the engine must be restarted to serve what `engine.json` says.

    An engine that still waits for its first configuration takes it by itself.
    """
    try:
        wanted = config_id(places.engine.read_bytes())
    except FileNotFoundError:
        return False
    if any(unit.name == systemd.VLLM and unit.active == "failed" for unit in units):
        return True
    taken = (files.read_json(places.status("engine")) or {}).get("config")
    return bool(taken) and taken != wanted


def sync(places: Places) -> bool:
    """Restart the engine if needed. Returns whether it was."""
    restart = needed(places, systemd.units((systemd.VLLM,)))
    if restart:
        systemd.restart(systemd.VLLM)
    return restart
