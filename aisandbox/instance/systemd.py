"""The appliance's services, as systemd sees them."""

from __future__ import annotations

import subprocess

from aisandbox.manifest import Part

VOLUME = "aisandbox-volume.service"
CONFIGURE = "aisandbox-configure.service"
MODEL = "aisandbox-model.service"
ENGINE_SYNC = "aisandbox-engine-sync.service"
STATUS = "aisandbox-status.service"
VLLM = "vllm.service"
OPEN_WEBUI = "open-webui.service"
NGINX = "nginx.service"
CERTIFICATE = "aisandbox-certificate.service"
FIREWALL = "nftables.service"
SANDBOX_API = "sandbox-api.service"
SANDBOX = (
    SANDBOX_API,
    "sandbox-display.service",
    "sandbox-window-manager.service",
    "sandbox-browser.service",
    "jupyter.service",
    "code-server.service",
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


def reload(*names: str) -> None:
    """Have the units read their configuration again, without waiting for them.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    _run("reload-or-restart", "--no-block", *names)


def refresh(*names: str) -> None:
    """Like `reload`, of those units only that run already: while the machine starts, the others come later anyway.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked.
    """
    _run("try-reload-or-restart", "--no-block", *names)


def reload_now(name: str) -> None:
    """Have the unit, if it runs, read its configuration again, and wait for it.

    Raises:
        OSError, subprocess.SubprocessError: the unit refuses its configuration, or systemd cannot be asked.
    """
    _run("try-reload-or-restart", name)


def lay_out() -> None:
    """Make the places that services write to, as at boot, on a data directory that was mounted since.

    Raises:
        OSError, subprocess.SubprocessError: a place cannot be made.
    """
    subprocess.run(["systemd-tmpfiles", "--create", "aisandbox.conf"], timeout=60, check=True)


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
