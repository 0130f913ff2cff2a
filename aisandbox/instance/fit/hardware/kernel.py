"""What the kernel tells about GPUs through /sys, /dev and /lib/modules, with or without NVIDIA's driver."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NVIDIA = "0x10de"
GPU_CLASSES = ("0x0300", "0x0302")
"""PCI's classes of display and of 3D controllers. NVSwitches and sound of the same maker have others."""
COMMON_NODES = ("nvidiactl", "nvidia-uvm")
"""Device files that CUDA opens for whichever GPU; without one of them it does not start."""
USER = "vllm"
"""Who opens the GPUs."""


@dataclass(frozen=True)
class Card:
    """An NVIDIA GPU on the PCI bus."""

    address: str
    """Such as 0000:65:00.0."""
    driver: str
    """Kernel driver that holds it, such as nvidia or nouveau; empty when none does."""


def cards(root: Path) -> tuple[Card, ...]:
    """The NVIDIA GPUs on the PCI bus, in its order."""
    return tuple(_cards(root))


def _cards(root: Path) -> Iterator[Card]:
    for device_class, device in pci(root, NVIDIA):
        if device_class.startswith(GPU_CLASSES):
            driver = device / "driver"
            yield Card(device.name, driver.resolve().name if driver.exists() else "")


def pci(root: Path, vendor: str) -> Iterator[tuple[str, Path]]:
    """Class, such as 0x030200, and folder of every PCI device of that vendor, in the order of the bus."""
    for device in sorted((root / "sys" / "bus" / "pci" / "devices").glob("*")):
        try:
            if (device / "vendor").read_text().strip() == vendor:
                yield (device / "class").read_text().strip(), device
        except OSError:
            continue


def loaded_driver(root: Path) -> str | None:
    """Version of the loaded NVIDIA module; None when none is loaded."""
    try:
        return (root / "sys" / "module" / "nvidia" / "version").read_text().strip()
    except OSError:
        return None


def has_module(root: Path) -> bool:
    """Whether NVIDIA's module was built for the running kernel. True when the kernel's modules cannot be listed."""
    try:
        return "/nvidia.ko" in (root / "lib" / "modules" / os.uname().release / "modules.dep").read_text()
    except OSError:
        return True


def closed_nodes(root: Path) -> tuple[str, ...]:
    """Names of NVIDIA's device nodes that the model server's user may not open, such as nvidiactl."""
    nodes = (root / "dev").glob("nvidia*")
    return tuple(sorted(node.name for node in nodes if not _open_to_server(node)))


def _open_to_server(node: Path) -> bool:
    try:
        status = node.stat()
        user = pwd.getpwnam(USER)
        groups = {user.pw_gid, *(group.gr_gid for group in grp.getgrall() if USER in group.gr_mem)}
    except OSError:
        return True  # gone meanwhile
    except KeyError:
        user, groups = None, set()
    if stat.S_ISDIR(status.st_mode):
        return True
    shift = 6 if user and status.st_uid == user.pw_uid else 3 if status.st_gid in groups else 0
    return status.st_mode >> shift & 6 == 6


def owner(root: Path, pid: int) -> str | None:
    """User that a program runs as; None when it cannot be seen, such as one of another container."""
    try:
        return pwd.getpwuid((root / "proc" / str(pid)).stat().st_uid).pw_name
    except (OSError, KeyError):
        return None
