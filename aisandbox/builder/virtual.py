"""Boots the disk image in QEMU: the way to see kernel and boot loader at work."""

from __future__ import annotations

import shutil
from pathlib import Path

from aisandbox import manifest
from aisandbox.builder import qemu, seed
from aisandbox.builder.errors import BuildError
from aisandbox.builder.image import directory, write_image
from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import MACHINES, make_key
from aisandbox.builder.progress import Phases

MEMORY_MIB = 6144
DISK_GIB = 16
SUFFIX = "-qemu"


def boot(
    name: str,
    image: Layer,
    user_data: str | None,
    accelerator: qemu.Accelerator,
    phases: Phases,
    *,
    uefi: bool = False,
) -> qemu.QemuMachine:
    """Start a virtual machine on the image's disk. Its ports are forwarded to free ones on 127.0.0.1.

    Raises:
        BuildError: the image cannot be written or QEMU does not start.
        seed.UserDataError: the user-data is malformed.
    """
    product = manifest.load()
    disk = next((path for path in write_image(image, phases) if path.suffix == ".qcow2"), None)
    if not disk:
        raise BuildError(f"{directory(image)} holds no disk image", "make image")
    state = state_directory(name)
    state.mkdir(parents=True, exist_ok=True)
    key = make_key(state)
    seed_disk = state / "seed.img"
    seed.write_seed_disk(
        seed_disk,
        instance_id=f"{name}-{image.key}",
        hostname=product.product.id,
        user_data=seed.ssh_user_data(key.with_suffix(".pub").read_text().strip(), product.os.default_user, user_data),
        network_config=None,
    )
    forwards = {port: (0, product.ports[port].port) for port in ("ssh", "chat", "api")}
    return qemu.boot(
        disk, seed_disk, state_dir=state, memory_mib=MEMORY_MIB, accelerator=accelerator, forwards=forwards,
        uefi=uefi, disk_gib=DISK_GIB, fresh=True,
    )  # fmt: skip


def state_directory(name: str) -> Path:
    """Directory of the virtual machine of that name."""
    return MACHINES / f"{name}{SUFFIX}"


def stop(name: str, *, remove: bool = False) -> None:
    """Power the virtual machine of that name off, if it runs; `remove` deletes its disk too."""
    state = state_directory(name)
    if state.exists():
        qemu.QemuMachine(state).stop()
        if remove:
            shutil.rmtree(state)


def names() -> list[str]:
    """Virtual machines of this checkout."""
    return [path.name.removesuffix(SUFFIX) for path in MACHINES.glob(f"*{SUFFIX}")]


def summary(machine: qemu.QemuMachine) -> str:
    """Addresses for a person."""
    user = manifest.load().os.default_user
    lines = [f"  {name:<5} 127.0.0.1:{machine.host_port(name)}" for name in ("ssh", "chat", "api")]
    lines.append(f"  login: ssh -i {machine.state_dir / 'id_ed25519'} -p {machine.host_port('ssh')} {user}@127.0.0.1")
    lines.append(f"  serial console: {machine.console}")
    return "\n".join(lines)
