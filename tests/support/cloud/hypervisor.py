"""A pretended cloud's hypervisor, with real machines: each boots its own systemd and is reached at its own address.

    with Hypervisor(folder) as hypervisor:
        builder = hypervisor.boot("builder", stock_image("cpu"), lambda place: Seed(...))
        ...                                     # it is changed over SSH
        hypervisor.power_off(builder)
        snapshot = hypervisor.snapshot(builder)
        hypervisor.destroy(builder)
        copy = hypervisor.boot("copy", snapshot.lower, lambda place: Seed(...))

Disks are directories: those below are shared and never written, the uppermost is the machine's own. A snapshot is the
machine's own directory, moved aside, on top of those below.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aisandbox.builder import container, network, nspawn
from aisandbox.builder.layers import Store, load, stack
from aisandbox.builder.remote import Remote
from tests.support import metadata
from tests.support.cloud import mac

METADATA_ADDRESS = "169.254.169.254"


def stock_image(flavour: str) -> tuple[Path, ...]:
    """What the cloud offers to build on, uppermost directory first: Debian as a vendor has it, with all layers below
    the appliance already in it, so that what remains to be provisioned takes a minute and not an hour."""
    store = Store()
    return tuple(store.rootfs(layer) for layer in reversed(stack(load(flavour)["appliance"].parents)))


@dataclass(frozen=True)
class Place:
    """Where a machine will be on the network; known before it boots."""

    address: str
    mac: str
    interface: str
    network: network.Network
    nameservers: list[str]


@dataclass(frozen=True)
class Seed:
    """What the platform hands to a machine."""

    files: Mapping[Path, str] = field(default_factory=dict)
    """Files or folders of the host, and where the machine sees them, read-only."""
    metadata: metadata.Cloud | None = None
    """What answers at http://169.254.169.254/."""


@dataclass(frozen=True)
class Snapshot:
    directory: Path
    lower: tuple[Path, ...]
    """The directories of its disk, uppermost first."""


class Instance(Remote):
    """A machine of the hypervisor. Whoever boots it knows by which key it can be logged in to."""

    def __init__(self, name: str, directory: Path, lower: Sequence[Path], place: Place) -> None:
        self.name, self.directory, self.lower, self.place = name, directory, tuple(lower), place
        self.pid = 0
        self.read_only: dict[str, str] = {}
        self.service: metadata.Double | None = None
        self.closing = ExitStack()
        self.login: tuple[str, Path] | None = None

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def user(self) -> str:
        return self._login[0]

    @property
    def key(self) -> Path:
        return self._login[1]

    @property
    def _login(self) -> tuple[str, Path]:
        assert self.login, f"nobody has said how to log in to {self.name}"
        return self.login

    @property
    def console(self) -> Path:
        return self.directory / nspawn.CONSOLE

    @property
    def running(self) -> bool:
        return nspawn.runs(self.directory, self.pid)


class Hypervisor:
    """Machines in a folder. All of them, their snapshots and the folder are gone after `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instances: dict[str, Instance] = {}
        self.snapshots: list[Snapshot] = []
        # Cloud APIs answer many at once.
        self._lock = threading.RLock()
        self._count = 0
        (folder / "snapshots").mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def boot(self, name: str, lower: Sequence[Path], seed: Callable[[Place], Seed]) -> Instance:
        """Boot a machine with an empty directory of its own over the directories `lower` (uppermost first).

        It is returned while it boots. `seed` is called once its address is known.
        """
        assert os.geteuid() == 0, "machines need root"
        with self._lock:
            assert name not in self.instances, f"there is a machine {name}"
            net = network.up()
            address = network.lease()
            place = Place(address, mac.of(network.machine_name(address)), network.INTERFACE, net, network.nameservers())
            directory = self.folder / name
            instance = Instance(name, directory, lower, place)
            # From here on, whatever happens, `close` finds it.
            self.instances[name] = instance
            directory.mkdir()
        given = seed(place)
        no_routers = directory / network.NO_ROUTERS.name
        no_routers.write_text(network.NO_ROUTERS_SETTINGS)
        instance.read_only = {
            **{str(outside): inside for outside, inside in given.files.items()},
            str(no_routers): str(network.NO_ROUTERS),
        }
        if given.metadata:
            self._serve(instance, given.metadata)
        self.power_on(instance)
        return instance

    def power_on(self, instance: Instance) -> None:
        """Boot a machine that is powered off, from the disk that it has."""
        with self._lock:
            if instance.running or instance.name not in self.instances:
                return
            lower = ":".join(map(str, instance.lower))
            instance.pid = nspawn.launch(
                instance.directory, instance.address, lower, binds={}, read_only=instance.read_only
            )

    def power_off(self, instance: Instance) -> None:
        """Power off in order, as by the power button; by force when that takes too long. The address stays."""
        self._keep_address(instance)
        if instance.running:
            nspawn.power_off(instance.directory, instance.pid)

    def cut_power(self, instance: Instance) -> None:
        """End it at once. The address stays."""
        self._keep_address(instance)
        if instance.running:
            nspawn.cut_power(instance.directory, instance.pid)

    def snapshot(self, instance: Instance) -> Snapshot:
        """The disk of a machine that is powered off. What the platform showed to the machine is none of it."""
        assert not instance.running, f"{instance.name} runs: its disk is not whole"
        with self._lock:
            self._count += 1
            directory = self.folder / "snapshots" / str(self._count)
            (instance.directory / "upper").rename(directory)
            for inside in instance.read_only.values():
                container.remove_mountpoint(directory, Path(inside))
            snapshot = Snapshot(directory, (directory, *instance.lower))
            instance.lower = snapshot.lower
            self.snapshots.append(snapshot)
        return snapshot

    def delete(self, snapshot: Snapshot) -> None:
        """Forget a snapshot. Its files stay while a machine runs on them."""
        with self._lock:
            self.snapshots.remove(snapshot)
            if not any(snapshot.directory in instance.lower for instance in self.instances.values()):
                shutil.rmtree(snapshot.directory)

    def destroy(self, instance: Instance) -> None:
        """End a machine at once and delete its disk. Does nothing when it is destroyed already."""
        with self._lock:
            if self.instances.get(instance.name) is not instance:
                return
            self._keep_address(instance)
            if instance.running:
                nspawn.cut_power(instance.directory, instance.pid)
            instance.closing.close()
            network.release(instance.address, os.getpid())
            shutil.rmtree(instance.directory)
            del self.instances[instance.name]

    def close(self) -> None:
        """Destroy every machine and delete every snapshot."""
        with self._lock, ExitStack() as each:
            # On the stack, so that one that fails does not keep the others.
            each.callback(shutil.rmtree, self.folder, ignore_errors=True)
            for instance in list(self.instances.values()):
                each.callback(self.destroy, instance)

    def _keep_address(self, instance: Instance) -> None:
        """Hold the address beyond the machine's process: before it ends, lest another test of the host takes it."""
        if self.instances.get(instance.name) is instance:
            network.hold(instance.address, os.getpid())

    def _serve(self, instance: Instance, cloud: metadata.Cloud) -> None:
        """Let `cloud` answer this machine, and no other, at the address of clouds' metadata services."""
        gateway = instance.place.network.gateway
        instance.service = instance.closing.enter_context(metadata.serving(cloud, bind=gateway))
        rule = [
            "PREROUTING", "-i", network.BRIDGE, "-s", instance.address, "-d", METADATA_ADDRESS, "-p", "tcp",
            "--dport", "80", *network.COMMENT, "-j", "DNAT",
            "--to-destination", f"{gateway}:{instance.service.server_address[1]}",
        ]  # fmt: skip
        _iptables("-I", rule)
        instance.closing.callback(_iptables, "-D", rule)


def _iptables(action: str, rule: list[str]) -> None:
    subprocess.run(["iptables", "-w", "-t", "nat", action, *rule], capture_output=True, check=True)
