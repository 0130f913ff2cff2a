"""Errors of GPUs and NVSwitches that NVIDIA's driver writes to the kernel's log: what they mean, and their fix.

Meanings and actions after NVIDIA's "Xid Errors" (https://docs.nvidia.com/deploy/xid-errors/, its catalog and the
actions that it recommends) and, of NVSwitches, its "Fabric Manager User Guide". The log is read for root: by
`aisandbox-status.service`, and by the doctor. The model server never sees it.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aisandbox.instance.problem import Problem
from aisandbox.manifest import Part

COMMAND = ("journalctl", "--dmesg", "--output=json", "--output-fields=MESSAGE", r"--grep=Xid \(|fallen off the bus")
"""What the kernel said since power-on."""
TIMEOUT_S = 10
LINE = re.compile(
    r"NVRM: Xid \((?:PCI:)?(?P<gpu>[\da-fA-F:.]+)\): (?P<code>\d+)\b"
    r"|NVRM: GPU (?P<lost>[\da-fA-F:.]+): GPU has fallen off the bus"
    r"|nvidia-nvswitch\d+: SXid \(PCI:(?P<switch>[\da-fA-F:.]+)\): (?P<fatal>\d+), Fatal"
)
LOST = 79
CLEANUP = 45
"""Follows each of the others: the work of every program on the GPU is ended."""
PASSING_S = 3600
"""So long a program's error is told that left the GPU as it was."""
MOST = 100
"""Errors that are kept: eight GPUs have fewer kinds of them at once."""

LOG = "What the driver reported: sudo journalctl -k --grep 'Xid|NVRM'"
RESTART = (
    "If the model does not answer: sudo systemctl restart vllm. If it comes again, choose another model or release of "
    f"the image: the error is the program's more often than the GPU's. {LOG}"
)
REBOOT = f"The GPU must be reset: sudo reboot. If it comes again, the GPU is broken: deploy on another machine. {LOG}"
REPLACE = f"Deploy on another machine; the provider has to replace this GPU. {LOG}"
FABRIC = (
    "All GPUs and NVSwitches must be reset together: sudo reboot. If it comes again, deploy on another machine. "
    "The links: nvidia-smi nvlink --status"
)
UNKNOWN = f"Its number is explained at https://docs.nvidia.com/deploy/xid-errors/. {LOG}"

ERRORS: dict[int, tuple[str, str]] = {
    13: ("stopped a program that computed something impossible (graphics engine exception)", RESTART),
    31: ("stopped a program that used memory which is not its own (MMU fault)", RESTART),
    43: ("stopped computing for a program after an error of that program", RESTART),
    45: ("ended the work of its programs, as it does after another error", RESTART),
    48: ("has an error in its memory that it could not correct (double-bit ECC error)", REBOOT),
    61: ("has a controller that stopped (breakpoint of an internal microcontroller)", REBOOT),
    62: ("has a controller that halted (internal microcontroller)", REBOOT),
    63: ("replaces damaged memory by spare memory, which needs a reset (row remapping)", REBOOT),
    64: ("could not replace damaged memory by spare memory (row remapping failed)", REPLACE),
    74: ("has an error on its links to other GPUs (NVLink)", FABRIC),
    79: ("has fallen off the bus", REBOOT),
    92: ("corrects unusually many errors of its memory (single-bit ECC errors)", REPLACE),
    94: ("had an error in its memory that ended one program only (contained ECC error)", RESTART),
    95: ("had an error in its memory that may have reached every program (uncontained ECC error)", REBOOT),
    119: ("has a system processor that does not answer the driver (GSP timeout)", REBOOT),
    120: ("has a system processor that failed (GSP error)", REBOOT),
    140: ("has an error in its memory that it did not recover from (unrecovered ECC error)", REBOOT),
    **dict.fromkeys(range(144, 151), ("has an error on its links to other GPUs (NVLink)", FABRIC)),
}
"""What the GPU did or has, and the fix."""


class Error(Part):
    """What the driver reported of one device, however often."""

    address: str
    """On the PCI bus, such as 0000:3b:00."""
    code: int
    switch: bool = False
    """Whether it is an NVSwitch, whose codes are others (SXid)."""
    count: int = 1
    last: float
    """Time of the last one, in seconds since 1970."""


class Errors:
    """Those since power-on, each kind of each device once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, bool], Error] = {}

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take an entry of the journal, as `--output=json` gives it."""
        found = LINE.search(str(entry.get("MESSAGE")))
        if not found:
            return
        address = (found["gpu"] or found["lost"] or found["switch"]).partition(".")[0].lower()
        code, switch = int(found["code"] or found["fatal"] or LOST), bool(found["switch"])
        key, last = (address, code, switch), int(entry.get("__REALTIME_TIMESTAMP") or 0) / 1e6
        if key in self._found or len(self._found) < MOST:
            count = self._found[key].count + 1 if key in self._found else 1
            self._found[key] = Error(address=address, code=code, switch=switch, count=count, last=last)

    @property
    def all(self) -> list[Error]:
        return list(self._found.values())


def read() -> list[Error]:
    """The errors since power-on; none where the log cannot be read."""
    errors = Errors()
    try:
        said = subprocess.run(COMMAND, capture_output=True, text=True, timeout=TIMEOUT_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    for line in said.splitlines():
        try:
            errors.add(json.loads(line))
        except ValueError:
            continue
    return errors.all


def problems(errors: Iterable[Error], now: float | None = None) -> Iterator[Problem]:
    """What to tell of them. It names no program, so that everybody may see it."""
    known, moment = list(errors), time.time() if now is None else now
    for error in known:
        if error.switch:
            reason = f"the NVSwitch at {error.address} reported a fatal error (SXid {error.code})"
            yield Problem(reason=reason, fix=FABRIC)
            continue
        others = any(other.address == error.address and other.code != CLEANUP for other in known)
        did, fix = ERRORS.get(error.code, ("reported an error", UNKNOWN))
        if (error.code == CLEANUP and others) or (fix == RESTART and moment - error.last > PASSING_S):
            continue
        often = f", {error.count} times since power-on" if error.count > 1 else ""
        yield Problem(reason=f"the GPU at {error.address} {did} (Xid {error.code}{often})", fix=fix)
