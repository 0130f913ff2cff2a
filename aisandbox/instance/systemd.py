"""The appliance's services, as systemd sees them."""

from __future__ import annotations

import subprocess

from aisandbox.manifest import Part

CONFIGURE = "aisandbox-configure.service"
MODEL = "aisandbox-model.service"
ENGINE_SYNC = "aisandbox-engine-sync.service"
STATUS = "aisandbox-status.service"
VLLM = "vllm.service"
OPEN_WEBUI = "open-webui.service"
NGINX = "nginx.service"
SANDBOX = tuple(
    f"{name}.service"
    for name in (
        "sandbox-api",
        "sandbox-display",
        "sandbox-window-manager",
        "sandbox-browser",
        "jupyter",
        "code-server",
    )
)

SERVICES = (CONFIGURE, MODEL, VLLM, OPEN_WEBUI, NGINX, *SANDBOX)
"""What users see in status and logs."""

LOOP_RESTARTS = 3
"""From so many restarts on, a service that does not stay up is in a crash loop."""


class Unit(Part):
    """State of one unit, in systemd's words."""

    name: str
    active: str
    sub: str
    result: str
    restarts: int


def units(names: tuple[str, ...] = SERVICES) -> tuple[Unit, ...]:
    """States of those of the units that exist; none where systemd cannot be asked."""
    try:
        shown = _run("show", "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts", *names)
    except (OSError, subprocess.SubprocessError):
        return ()
    blocks = (dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n"))
    return tuple(_unit(block) for block in blocks if block.get("LoadState") == "loaded")


def crash_loop(unit: Unit) -> str | None:
    """One sentence on a unit that keeps crashing: how often, why, when it is tried again; None when it does not."""
    if unit.restarts < LOOP_RESTARTS or unit.active == "active":
        return None
    return f"{unit.name} has crashed {unit.restarts} times"


def restart(*names: str) -> None:
    """Restart the units, also those that systemd has given up on, without waiting for them.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    _run("reset-failed", *names, check=False)
    _run("restart", "--no-block", *names)


def _unit(block: dict[str, str]) -> Unit:
    return Unit(
        name=block["Id"],
        active=block.get("ActiveState", ""),
        sub=block.get("SubState", ""),
        result=block.get("Result", ""),
        restarts=int(block.get("NRestarts") or 0),
    )


def _run(*arguments: str, check: bool = True) -> str:
    command = ["systemctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=check).stdout
