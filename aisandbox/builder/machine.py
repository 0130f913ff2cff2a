"""Local machines: boots the baked image as a marketplace would, without ever changing it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.builder import network, nspawn, seed
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import Layer, Store
from aisandbox.builder.remote import Remote

MACHINES = manifest.REPOSITORY / "build" / "machines"


@dataclass(frozen=True)
class Machine(Remote):
    """A machine of this host. Everything about it lies in its directory; its data volume outlives its image."""

    name: str

    @property
    def directory(self) -> Path:
        return MACHINES / self.name

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def console(self) -> Path:
        return self.directory / nspawn.CONSOLE

    @property
    def facts(self) -> dict[str, Any]:
        """What the machine was started with; empty when it never was."""
        try:
            facts: dict[str, Any] = json.loads((self.directory / "machine.json").read_text())
        except FileNotFoundError:
            return {}
        return facts

    @property
    def address(self) -> str:
        return str(self.facts["address"])

    @property
    def user(self) -> str:
        return manifest.load().os.default_user

    @property
    def running(self) -> bool:
        pid = self.facts.get("pid")
        return pid is not None and nspawn.runs(self.directory, pid)

    def start(
        self,
        image: Layer,
        user_data: str | None = None,
        *,
        narrowed: bool = False,
        binds: dict[str, str] | None = None,
    ) -> None:
        """Boot `image` under a fresh overlay, with the deployer's `user_data`. The data volume is kept.

        The same image with the same user-data is started as the same instance: what was changed on it is still there.

        Args:
            narrowed: chat, API and sandbox answer to this host alone, unless the user-data says otherwise.
            binds: further host directories the machine sees, writable: host path to machine path.

        Raises:
            BuildError: not root, or the machine's network cannot be made.
            seed.UserDataError: the user-data is malformed.
        """
        if os.geteuid() != 0:
            raise BuildError("starting a machine needs root", "run it through sudo: sudo make up")
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        make_key(self.directory)
        product = manifest.load()
        composed = seed.ssh_user_data(
            self.key.with_suffix(".pub").read_text().strip(), product.os.default_user, user_data
        )
        choice = _digest(user_data, narrowed)
        former = self.facts.get("address")
        if (self.facts.get("image"), self.facts.get("choice")) != (image.id, choice):
            former = None
            for stale in ("upper", "work", "merged"):
                shutil.rmtree(self.directory / stale, ignore_errors=True)
        net = network.up()
        address = network.lease(former)
        seed.write_seed_dir(
            self.directory / "seed",
            instance_id=f"{self.name}-{image.key}-{choice}",
            hostname=product.product.id,
            user_data=composed,
            vendor_data=seed.narrowed_to(net.gateway) if narrowed else "",
            network_config=net.network_config(address, network.nameservers()),
        )
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        no_routers = self.directory / network.NO_ROUTERS.name
        no_routers.write_text(network.NO_ROUTERS_SETTINGS)
        pid = nspawn.launch(
            self.directory,
            address,
            Store().lower_directories(image),
            binds={str(data): str(product.paths.data), **(binds or {})},
            read_only={
                str(self.directory / "seed"): "/var/lib/cloud/seed/nocloud",
                str(no_routers): str(network.NO_ROUTERS),
            },
        )
        facts = {
            "name": self.name, "image": image.id, "choice": choice, "address": address, "pid": pid,
            "started": time.time(),
        }  # fmt: skip
        (self.directory / "machine.json").write_text(json.dumps(facts, indent=2))

    def has_choice(self, user_data: str | None, narrowed: bool = False) -> bool:
        """Whether the machine was started with this user-data, narrowed to this host or not."""
        return bool(self.facts.get("choice") == _digest(user_data, narrowed))

    def stop(self) -> None:
        """Power off in order; by force after 40 seconds. Does nothing when it is not running."""
        if self.running:
            self.hang_up()
            nspawn.power_off(self.directory, int(self.facts["pid"]))
        self._give_address_back()

    def cut_power(self) -> None:
        """End it at once, as a power cut would. Does nothing when it is not running."""
        if self.running:
            self.hang_up()
            nspawn.cut_power(self.directory, int(self.facts["pid"]))
        self._give_address_back()

    def _give_address_back(self) -> None:
        if self.facts:
            network.release(self.address, int(self.facts["pid"]))

    def remove(self) -> None:
        """End it and delete everything about it, its data volume included: nothing is left to save in order."""
        self.cut_power()
        shutil.rmtree(self.directory, ignore_errors=True)


def _digest(user_data: str | None, narrowed: bool) -> str:
    return hashlib.sha256(((user_data or "") + "\0" * narrowed).encode()).hexdigest()[:12]


def make_key(directory: Path) -> Path:
    """The SSH key pair of a machine, made once; returns the private key's path."""
    key = directory / "id_ed25519"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "aisandbox", "-f", str(key)], check=True)
    return key


def machines() -> list[Machine]:
    """All machines of this checkout, running or not."""
    return [Machine(path.parent.name) for path in sorted(MACHINES.glob("*/machine.json"))]
