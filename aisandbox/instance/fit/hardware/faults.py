"""What can be wrong with driver and GPUs: each with a message, and the command that fixes it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from aisandbox.instance.fit.hardware import kernel
from aisandbox.instance.fit.hardware.facts import CUDA, GIB, LEAST_DRIVER
from aisandbox.instance.fit.hardware.nvml import HEAT, POWER_BRAKE, Device, Failure
from aisandbox.instance.problem import Problem

NO_PERMISSION, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, LOST, RESET_REQUIRED, MISMATCH = 4, 9, 12, 15, 16, 18

INSTALL_DRIVER = (
    "sudo apt-get update && sudo apt-get install --yes nvidia-driver-cuda nvidia-kernel-open-dkms && sudo reboot"
)
GIVE_GPU = (
    "Start the container with its GPU (docker run --gpus all), on a host whose driver serves CUDA "
    f"{CUDA}: {LEAST_DRIVER} or newer."
)
GPU_PLAN = (
    "Deploy on a plan with an NVIDIA GPU, or deploy the CPU flavour of the image. The machine has: lspci -d 10de:"
)
BUILD_MODULE = (
    "Build it: sudo apt-get install --yes linux-headers-$(uname -r) && sudo dkms autoinstall && sudo modprobe nvidia "
    "&& sudo aisandbox configure"
)
NO_NOUVEAU = (
    "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee /etc/modprobe.d/blacklist-nouveau.conf && "
    "sudo update-initramfs -u && sudo reboot"
)
LOAD_DRIVER = (
    "Load the driver: sudo modprobe nvidia && sudo aisandbox configure. Why it is not loaded: "
    "sudo journalctl -k | grep -i nvidia"
)
OPEN_NODES = (
    "sudo chmod a+rw /dev/nvidia[0-9]* /dev/nvidiactl /dev/nvidia-uvm* && sudo aisandbox configure. To keep it so: "
    "echo options nvidia NVreg_DeviceFileMode=0666 | sudo tee /etc/modprobe.d/nvidia-nodes.conf"
)
REBOOT = (
    "sudo reboot. If that does not help, the GPU is broken: deploy on another machine. What the driver reported: "
    "sudo journalctl -k --grep 'NVRM|Xid'"
)
UNKNOWN = "See: sudo nvidia-smi; sudo journalctl -k | grep -i nvidia"


def label(device: Device) -> str:
    """What people find the GPU by, in nvidia-smi or among the machine's parts."""
    what = device.unit.name if device.unit else device.address
    return f"GPU {device.index} ({what})" if what else f"GPU {device.index}"


# What leaves no GPU at all


def no_library(failure: Failure, root: Path) -> Problem:
    """Why the library does not answer, as far as the kernel tells."""
    cards, loaded = kernel.cards(root), kernel.loaded_driver(root)
    holders = {card.driver for card in cards} - {"nvidia", ""}
    closed = kernel.closed_nodes(root)
    said = f"({failure.text})"
    if failure.code == MISMATCH:
        versions = f" The loaded kernel module is {loaded}." if loaded else ""
        reason = f"{failure.text}{versions}"
        return Problem(reason=reason, fix="The driver was updated while it was running: sudo reboot")
    if failure.code == NO_PERMISSION and closed:
        return closed_nodes(closed)
    if failure.code == LIBRARY_NOT_FOUND and loaded:
        reason = f"the driver is half installed: its kernel module {loaded} is loaded, its library is missing {said}"
        return Problem(reason=reason, fix=f"Install it again: {INSTALL_DRIVER}")
    if failure.code in (DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND):
        if holders:
            return held(cards[0].address, sorted(holders)[0])
        if cards and not kernel.has_module(root):
            reason = f"the NVIDIA driver has no module for this kernel, {os.uname().release} {said}"
            return Problem(reason=reason, fix=BUILD_MODULE if failure.code == DRIVER_NOT_LOADED else INSTALL_DRIVER)
        if (root / "sys" / "bus" / "pci" / "devices").is_dir() and not cards:
            return Problem(reason=f"the machine has no NVIDIA GPU {said}", fix=GPU_PLAN)
    if failure.code == LIBRARY_NOT_FOUND:
        fix = f"Deploy on a plan with an NVIDIA GPU. With one, install its driver: {INSTALL_DRIVER}"
        return Problem(reason=failure.text, fix=fix)
    return Problem(reason=failure.text, fix=LOAD_DRIVER if failure.code == DRIVER_NOT_LOADED else UNKNOWN)


def old_driver(version: str) -> Problem | None:
    """Any driver from `LEAST_DRIVER` on serves: newer ones serve older releases of CUDA as well."""
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) >= LEAST_DRIVER:
        return None
    reason = f"driver {version} is too old for CUDA {CUDA}: needs {LEAST_DRIVER} or newer"
    return Problem(reason=reason, fix=f"Update the driver and reboot: {INSTALL_DRIVER}")


def no_gpu(version: str) -> Problem:
    return Problem(reason=f"driver {version} runs, and finds no GPU", fix=GPU_PLAN)


def closed_nodes(names: Iterable[str]) -> Problem:
    paths = ", ".join(f"/dev/{name}" for name in names)
    return Problem(reason=f"the model server's user, {kernel.USER}, may not open {paths}", fix=OPEN_NODES)


# What leaves one GPU out


def held(address: str, driver: str) -> Problem:
    """A GPU that another kernel driver holds."""
    if driver == "nouveau":
        return Problem(reason=f"the driver Nouveau holds the GPU at {address}, not NVIDIA's", fix=NO_NOUVEAU)
    fix = f"Give it back: echo {address} | sudo tee /sys/bus/pci/drivers/{driver}/unbind && sudo modprobe nvidia"
    return Problem(reason=f"the driver {driver} holds the GPU at {address}, not NVIDIA's", fix=fix)


def not_served(card: kernel.Card) -> Problem:
    """A GPU on the bus that NVIDIA's driver does not count."""
    if card.driver not in ("nvidia", ""):
        return held(card.address, card.driver)
    return Problem(reason=f"the driver cannot start the GPU at {card.address}, so it is not used", fix=REBOOT)


def unusable(device: Device, closed: Iterable[str], least: tuple[int, int] | None) -> Problem | None:
    """Why nothing can be computed on this GPU.

    `least` is the oldest compute capability that the engine has code for.
    """
    if device.failure:
        return _no_answer(device, device.failure)
    if device.minor is not None and f"nvidia{device.minor}" in closed:
        return closed_nodes(name for name in closed if name.removeprefix("nvidia").isdecimal())
    unit = device.unit
    if unit and least and unit.capability and unit.capability < least:
        have, need = (".".join(map(str, pair)) for pair in (unit.capability, least))
        reason = f"{unit.name} is too old for CUDA {CUDA}: it has compute capability {have}, needed is {need}"
        return Problem(reason=reason, fix="Deploy on a plan with a newer GPU: a T4, or anything later.")
    if device.sliced and not device.slices:
        reason = f"{label(device)} is in MIG mode and has no slice, so nothing can compute on it"
        fix = f"Use it whole: sudo nvidia-smi -i {device.index} -mig 0 && sudo aisandbox configure"
        return Problem(reason=reason, fix=f"{fix}. Or make a slice: sudo nvidia-smi mig -i {device.index} -cgi 0 -C")
    return None


def _no_answer(device: Device, failure: Failure) -> Problem:
    if failure.code == LOST:
        return Problem(reason=f"{label(device)} has fallen off the bus ({failure.text}), so it is not used", fix=REBOOT)
    fix = REBOOT if failure.code == RESET_REQUIRED else UNKNOWN
    return Problem(reason=f"{label(device)} cannot be used ({failure.text})", fix=fix)


# What leaves GPUs idle, or makes them worse


def unequal(used: str, idle: str) -> Problem:
    """Both are counts and names, such as "2 NVIDIA L4"."""
    reason = f"vLLM shares a model among GPUs of one kind only; in use: {used}, idle: {idle}"
    return Problem(reason=reason, fix="To use every GPU, deploy on a plan whose GPUs are all of one kind.")


def sliced(device: Device, used: str) -> Problem:
    count = len(device.slices)
    reason = f"{label(device)} is divided into {count} slices (MIG), of which a model can use one; it uses {used}"
    fix = f"To use all of it: sudo nvidia-smi -i {device.index} -mig 0 && sudo aisandbox configure"
    return Problem(reason=reason, fix=fix)


END = "End it, then: sudo aisandbox configure"


def taken(device: Device, size: int, is_used: bool) -> Problem:
    """Other programs have `size` bytes of the GPU's memory. The progress page shows this to everybody: no names."""
    result = "the model is fitted to the rest" if is_used else "it is not used"
    reason = f"another process has {size / GIB:.1f} GiB of the memory of {label(device)}, so {result}"
    return Problem(reason=reason, fix=f"{END}. Which one it is: sudo aisandbox doctor")


def taken_by(device: Device, who: str) -> Problem:
    """The names of those programs, for the owner."""
    return Problem(reason=f"the memory of {label(device)} is also used by {who}", fix=f"{END}. See: nvidia-smi")


def lasting(device: Device) -> Iterator[Problem]:
    """What is wrong with a GPU that serves nevertheless."""
    if device.repair_failed:
        reason = f"{label(device)} has damaged memory and no spare memory to replace it: answers may become wrong"
        yield Problem(reason=reason, fix="Deploy on another machine; the provider has to replace this GPU.")
    elif device.memory_errors or device.repair_pending:
        errors = f"{device.memory_errors} uncorrectable memory errors" if device.memory_errors else "damaged memory"
        repair = ", which it replaces when it restarts" if device.repair_pending else ""
        reason = f"{label(device)} has {errors}{repair}: programs on it may crash"
        yield Problem(reason=reason, fix=f"Restart the machine: {REBOOT}")
    if device.licensed is False:
        reason = f"{label(device)} is a virtual GPU without a licence: it slows down some minutes after its start"
        yield Problem(
            reason=reason,
            fix="Put the provider's token into /etc/nvidia/ClientConfigToken/, then: "
            "sudo systemctl restart nvidia-gridd. What it says: nvidia-smi -q | grep -i license",
        )


def momentary(device: Device) -> Iterator[Problem]:
    """What slows a GPU down now."""
    if device.slow & HEAT:
        reason = f"{label(device)} is slowed down because it is hot"
        yield Problem(reason=reason, fix=f"Its temperature: nvidia-smi -i {device.index} -q -d TEMPERATURE,PERFORMANCE")
    if device.slow & POWER_BRAKE:
        reason = f"{label(device)} is slowed down because the machine's power supply demands it"
        fix = "Only the machine's provider can change that. How often: nvidia-smi -q -d PERFORMANCE"
        yield Problem(reason=reason, fix=fix)
    if device.power_w and device.power_w[0] < device.power_w[1]:
        now, usual = device.power_w
        reason = f"{label(device)} may take {now} W of the {usual} W that it is made for, so it computes more slowly"
        yield Problem(reason=reason, fix=f"sudo nvidia-smi -i {device.index} -pl {usual}")
    if device.persistent is False:
        reason = f"{label(device)} is not in persistence mode: the driver starts it anew for each first use"
        yield Problem(
            reason=reason,
            fix=f"sudo systemctl enable --now nvidia-persistenced || sudo nvidia-smi -i {device.index} -pm 1",
        )
