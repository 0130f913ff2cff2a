"""What CUDA needs from root before the model server starts, which may gain no privileges itself.

`prepare` makes NVIDIA's device files (aisandbox-gpu.service), `start_fabric` starts the fabric manager of a machine
with NVSwitches (aisandbox-fabric.service). Both always return: what went wrong is reported, and the boot goes on.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.fit.hardware import kernel
from aisandbox.instance.observe.report import DEVICES, FABRIC, Reporter
from aisandbox.instance.places import Places
from aisandbox.instance.run import services
from aisandbox.instance.run.services import FABRIC_MANAGER

MODPROBE = "nvidia-modprobe"
CONTROL_MINOR = 255
"""Of /dev/nvidiactl; the GPUs' own minor numbers count from 0."""
MODPROBE_TIMEOUT_S = 60
"""Loading the driver of a machine with eight GPUs takes about ten seconds."""
FABRIC_TIMEOUT_S = 180
"""Training the links of eight GPUs takes half a minute."""

MELLANOX = "0x15b3"
BRIDGE_CLASS = "0x0680"
"""Of an NVSwitch (A100, H100 and H200 boards)."""
SWITCH_MANAGEMENT = b"SW_MNG"
"""In the product data of the network adapter by which newer NVSwitches (B200 and later boards) are managed."""
MINOR = re.compile(r"^Device Minor:\s*(\d+)", re.MULTILINE)
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

RETRY_DEVICES = "sudo systemctl restart aisandbox-gpu vllm"
RETRY_FABRIC = "sudo systemctl restart aisandbox-fabric vllm"


class _Failed(Exception):
    """nvidia-modprobe did not do what it was asked for. The text says why."""


def prepare(places: Places) -> None:
    """Load NVIDIA's modules and make the device files of every GPU, of unified memory and of MIG instances."""
    report = Reporter(places.status(DEVICES))
    if not kernel.cards(places.root):
        report.done("devices", "This machine has no NVIDIA GPU.")
        return
    try:
        _modprobe()
        minors = sorted(_minors(places))
        _modprobe(*(word for minor in (CONTROL_MINOR, *minors) for word in ("-c", str(minor))))
        _modprobe("-u", "-c", "0")
        capabilities = [word for path in _capabilities(places) for word in ("-f", str(path))]
        if capabilities:
            _modprobe(*capabilities)
    except FileNotFoundError:
        if all((places.root / "dev" / name).exists() for name in kernel.COMMON_NODES):
            report.done("devices", f"{MODPROBE} is not installed; something else has made the device files.")
            return
        reason = f"{MODPROBE} is not installed, so CUDA may find no device files of the GPUs."
        fix = f"Install it: sudo apt-get install {MODPROBE} && {RETRY_DEVICES}"
        report.failed("devices", reason, fix)
    except _Failed as failure:
        fix = f"See why: sudo journalctl -k --grep 'nvidia|NVRM'; sudo dkms status. Then: {RETRY_DEVICES}"
        if _secure_boot(places) and not kernel.loaded_driver(places.root):
            fix = "Secure Boot is on and refuses NVIDIA's module, which is not signed: switch it off and reboot."
        report.failed("devices", f"The device files of the GPUs are not complete: {failure}.", fix)
    else:
        report.done("devices", f"The device files of {len(minors)} GPU(s) are ready.")


def start_fabric(places: Places) -> None:
    """Start the fabric manager where GPUs are joined by NVSwitches, and wait: CUDA does not start before it."""
    switches = any(device_class.startswith(BRIDGE_CLASS) for device_class, _ in kernel.pci(places.root, kernel.NVIDIA))
    managed = any(SWITCH_MANAGEMENT in _bytes(device / "vpd") for _, device in kernel.pci(places.root, MELLANOX))
    if not (switches or managed):
        files.remove(places.status(FABRIC))
        print("This machine has no NVSwitch: its GPUs need no fabric manager.")
        return
    report = Reporter(places.status(FABRIC))
    if not services.units((FABRIC_MANAGER,)):
        reason = "The GPUs are joined by NVSwitches, and nvidia-fabricmanager is not installed: CUDA cannot start."
        driver = kernel.loaded_driver(places.root)
        package = f"nvidia-fabricmanager={driver}-*" if driver else "nvidia-fabricmanager"
        fix = f"Install it in the driver's version: sudo apt-get install '{package}' && {RETRY_FABRIC}"
        report.failed("fabric", reason, fix)
        return
    report.running("fabric", "The fabric manager prepares the NVSwitches.")
    if managed:
        # By which the fabric manager's subnet manager talks to them.
        _run("modprobe", "ib_umad", timeout_s=MODPROBE_TIMEOUT_S)
    reason = _run("systemctl", "start", FABRIC_MANAGER, timeout_s=FABRIC_TIMEOUT_S)
    if reason:
        said = services.backend().crashes(FABRIC_MANAGER).error or reason
        fix = f"See: sudo journalctl -b -u nvidia-fabricmanager. Its version must be the driver's. Then: {RETRY_FABRIC}"
        report.failed("fabric", f"The NVSwitches are not ready, so CUDA cannot start: {said}", fix)
    else:
        report.done("fabric", "The NVSwitches are ready.")


def _modprobe(*arguments: str) -> None:
    """Run nvidia-modprobe; it says nothing of its own.

    Raises:
        FileNotFoundError: it is not installed.
        _Failed: it failed or did not end.
    """
    reason = _run(MODPROBE, *arguments, timeout_s=MODPROBE_TIMEOUT_S)
    if reason:
        raise _Failed(reason)


def _run(*command: str, timeout_s: float) -> str:
    """Run a program; returns why it failed, or nothing.

    Raises:
        FileNotFoundError: there is no such program.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return f"`{' '.join(command)}` did not end within {timeout_s:.0f} s"
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines()
    return f"`{' '.join(command)}` failed with status {done.returncode}" + (f": {said[-1]}" if said else "")


def _minors(places: Places) -> Iterator[int]:
    """Minor numbers of the GPUs that the driver runs."""
    for path in (places.root / "proc/driver/nvidia/gpus").glob("*/information"):
        if found := MINOR.search(_bytes(path).decode(errors="replace")):
            yield int(found[1])


def _capabilities(places: Places) -> list[Path]:
    """The driver's files of what may be opened of MIG: each instance, and their list. Not the right to change them."""
    folder = places.root / "proc/driver/nvidia/capabilities"
    instances = sorted(folder.glob("gpu*/mig/**/access"))
    return [*instances, folder / "mig/monitor"] if instances else []


def _secure_boot(places: Places) -> bool:
    """Whether the firmware lets the kernel load signed modules only."""
    return _bytes(places.root / SECURE_BOOT)[-1:] == b"\x01"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
