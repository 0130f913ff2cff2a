"""Runs `systemctl`, and reads what its `show` prints. Standard library only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

PATIENCE_S = 60.0
"""A busy or emulated machine takes its time to answer."""

Properties = dict[str, dict[str, str]]
"""The properties of units, by the units' names."""


def run(*arguments: str, check: bool = True, timeout_s: float = PATIENCE_S) -> str:
    """What `systemctl` prints.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be run, takes too long, or (with `check`) fails.
    """
    command = ["systemctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=check).stdout


def show(units: Iterable[str], *properties: str, timeout_s: float = PATIENCE_S) -> Properties:
    """These properties of the units. A unit that does not exist has them, too: its `LoadState` says so.

    Raises:
        OSError, subprocess.SubprocessError: systemd cannot be asked.
    """
    names = tuple(units)
    if not names:
        return {}
    return parse(run("show", f"--property=Id,{','.join(properties)}", *names, timeout_s=timeout_s))


def parse(shown: str) -> Properties:
    """What `systemctl show` printed, of units whose `Id` is among it."""
    blocks = (dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n"))
    return {block.pop("Id"): block for block in blocks if "Id" in block}
