"""Runs one machine in systemd-nspawn. Started in a mount namespace of its own, so its overlay goes when it goes.

Run as: `unshare --mount --propagation private python -m aisandbox.build.nspawn MACHINE_DIRECTORY`.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from aisandbox.build.container import OVERLAY_OPTIONS

REBOOT = 133
"""systemd-nspawn's exit status when the machine asked for a reboot."""
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    directory = Path(sys.argv[1])
    config = json.loads((directory / "nspawn.json").read_text())
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
