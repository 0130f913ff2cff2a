"""Runs machines in systemd-nspawn: each with its own systemd, its own address, and everything about it in a directory.

`launch` runs this file as a program in a mount namespace of its own, so the machine's overlay goes when it goes.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

from aisandbox.builder import network
from aisandbox.builder.container import OVERLAY_OPTIONS
from aisandbox.builder.waiting import wait_until
from aisandbox.manifest import REPOSITORY

REBOOT = 133
"""systemd-nspawn's exit status when the machine asked for a reboot."""
PR_SET_PDEATHSIG = 1
STOP_SECONDS = 40.0
CONSOLE = "console.log"
GROUPS = Path("/sys/fs/cgroup")
GROUP_PREFIX = "aisandbox-machine-"


def launch(directory: Path, address: str, lower: str, *, binds: Mapping[str, str], read_only: Mapping[str, str]) -> int:
    """Boot a machine over the overlay layers `lower`; what it changes is kept in `directory`/upper.

    Args:
        address: leased from the network; it is the machine's as long as it runs.
        binds: host path to machine path, writable.
        read_only: host path to machine path.

    Returns:
        The number of the process that is the machine.
    """
    config = {
        "name": network.machine_name(address),
        "lower": lower,
        "bridge": network.BRIDGE,
        "binds": dict(binds),
        "read_only": dict(read_only),
    }
    (directory / "nspawn.json").write_text(json.dumps(config, indent=2))
    command = [
        "unshare", "--mount", "--propagation", "private",
        sys.executable, "-m", "aisandbox.builder.nspawn", str(directory),
    ]  # fmt: skip
    with (directory / CONSOLE).open("wb") as console:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
        )
    network.hold(address, process.pid)
    return process.pid


def runs(directory: Path, pid: int) -> bool:
    """Whether the machine of that directory runs as that process."""
    process = Path(f"/proc/{pid}")
    try:
        # A process has no command line for a moment while it executes another program, and once it has ended.
        while not (command := (process / "cmdline").read_bytes()):
            if re.search(r"^State:\s*[ZX]", (process / "status").read_text(), re.MULTILINE):
                return False
    except OSError:
        return False
    return str(directory).encode() in command.split(b"\0")


def power_off(directory: Path, pid: int) -> None:
    """Power off in order; by force after 40 seconds."""
    os.kill(pid, signal.SIGTERM)
    if not wait_until(lambda: not runs(directory, pid), STOP_SECONDS):
        cut_power(directory, pid)


def cut_power(directory: Path, pid: int) -> None:
    """End it at once: nspawn with the machine's first process, which takes all others of the machine with it."""
    nspawn = _children(pid)
    for process in (*(inner for outer in nspawn for inner in _children(outer)), *nspawn, pid):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    wait_until(lambda: not runs(directory, pid), 5)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _enter_own_groups(name: str) -> None:
    """Move this process, and so the machine, into control groups of its own.

    Machines in one group would share the groups of their services: what one's systemd removes, the other's is about to
    use, and neither can kill a group that holds processes of the other.
    """
    hierarchies = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in hierarchies:
        # A new group of `cpuset` takes no processes, and systemd makes none.
        if controllers == "cpuset":
            continue
        for mount in _group_mounts(controllers):
            parent = mount / path.lstrip("/")
            _remove_empty_groups(parent)
            group = parent / f"{GROUP_PREFIX}{name}-{os.getpid()}"
            with suppress(OSError):
                group.mkdir(exist_ok=True)
                (group / "cgroup.procs").write_text("0")


def _group_mounts(controllers: str) -> list[Path]:
    """Where a hierarchy is mounted; the one without controllers is version 2."""
    folder = controllers.removeprefix("name=")
    names = [GROUPS / folder] if folder else [GROUPS / "unified", GROUPS]
    return [path for path in names if (path / "cgroup.procs").exists()][:1]


def _remove_empty_groups(parent: Path) -> None:
    """Remove the groups of machines that have ended. Those of one that starts are empty, too, for a moment."""
    for group in parent.glob(f"{GROUP_PREFIX}*"):
        if Path(f"/proc/{group.name.rpartition('-')[2]}").exists():
            continue
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


def main() -> None:
    directory = Path(sys.argv[1])
    config = json.loads((directory / "nspawn.json").read_text())
    _enter_own_groups(config["name"])
    for name in ("upper", "work", "merged"):
        (directory / name).mkdir(exist_ok=True)
    options = (
        f"lowerdir={config['lower']},upperdir={directory / 'upper'},workdir={directory / 'work'},{OVERLAY_OPTIONS}"
    )
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(directory / "merged")], check=True)
    command = [
        "systemd-nspawn", "--quiet", "--boot", f"--machine={config['name']}", f"--directory={directory / 'merged'}",
        "--register=no", "--keep-unit", f"--network-bridge={config['bridge']}", "--resolv-conf=off", "--timezone=off",
        "--link-journal=no", "--console=pipe",
        *(f"--bind={outside}:{inside}" for outside, inside in config["binds"].items()),
        *(f"--bind-ro={outside}:{inside}" for outside, inside in config["read_only"].items()),
    ]  # fmt: skip
    machine: subprocess.Popen[bytes] | None = None
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if machine:
            # nspawn passes this on as an orderly power-off.
            machine.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = REBOOT
    while status == REBOOT and not stopping:
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
        status = machine.wait()
    sys.exit(0 if stopping else status)


if __name__ == "__main__":
    main()
