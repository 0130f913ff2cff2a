"""Local machines: boots the baked image as a marketplace would, without ever changing it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.build import network, seed
from aisandbox.build.errors import BuildError
from aisandbox.build.layers import Layer, Store

MACHINES = manifest.REPOSITORY / "build" / "machines"
STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Machine:
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
        return self.directory / "console.log"

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
    def running(self) -> bool:
        pid = self.facts.get("pid")
        if not pid:
            return False
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return str(self.directory).encode() in command

    def start(self, image: Layer, user_data: str | None = None, *, binds: dict[str, str] | None = None) -> None:
        """Boot `image` under a fresh overlay, with the deployer's `user_data`. The data volume is kept.

        The same image with the same user-data is started as the same instance: what was changed on it is still there.

        Args:
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
        choice = _digest(user_data)
        if (self.facts.get("image"), self.facts.get("choice")) != (image.id, choice):
            for stale in ("upper", "work", "merged"):
                shutil.rmtree(self.directory / stale, ignore_errors=True)
        net = network.up()
        address = network.lease()
        seed.write_seed_dir(
            self.directory / "seed",
            instance_id=f"{self.name}-{image.key}-{choice}",
            hostname=product.product.id,
            user_data=composed,
            network_config=net.network_config(address, network.nameservers()),
        )
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        no_routers = self.directory / network.NO_ROUTERS.name
        no_routers.write_text(network.NO_ROUTERS_SETTINGS)
        config = {
            "name": network.machine_name(address),
            "lower": Store().lower_directories(image),
            "bridge": network.BRIDGE,
            "binds": {str(data): str(product.paths.data), **(binds or {})},
            "read_only": {
                str(self.directory / "seed"): "/var/lib/cloud/seed/nocloud",
                str(no_routers): str(network.NO_ROUTERS),
            },
        }
        (self.directory / "nspawn.json").write_text(json.dumps(config, indent=2))
        with self.console.open("wb") as console:
            process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private",
                 sys.executable, "-m", "aisandbox.build.nspawn", str(self.directory)],
                cwd=manifest.REPOSITORY, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                start_new_session=True,
            )  # fmt: skip
        network.hold(address, process.pid)
        facts = {
            "name": self.name, "image": image.id, "choice": choice, "address": address, "pid": process.pid,
            "started": time.time(),
        }  # fmt: skip
        (self.directory / "machine.json").write_text(json.dumps(facts, indent=2))

    def has_choice(self, user_data: str | None) -> bool:
        """Whether the machine was started with this user-data."""
        return bool(self.facts.get("choice") == _digest(user_data))

    def stop(self) -> None:
        """Power off in order; by force after 40 seconds. Does nothing when it is not running."""
        if self.running:
            pid = int(self.facts["pid"])
            os.kill(pid, signal.SIGTERM)
            if not _wait(lambda: not self.running, STOP_SECONDS):
                _kill(pid)
                _wait(lambda: not self.running, 5)
        if self.facts:
            network.release(self.address, int(self.facts["pid"]))

    def cut_power(self) -> None:
        """End it at once, as a power cut would. Does nothing when it is not running."""
        if self.running:
            pid = int(self.facts["pid"])
            _kill(pid)
            _wait(lambda: not self.running, 5)
            network.release(self.address, pid)

    def remove(self) -> None:
        """Stop it and delete everything about it, its data volume included."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def ssh_command(self, *command: str) -> list[str]:
        """The argv that runs `command` (or a shell) on the machine as the default user."""
        user = manifest.load().os.default_user
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        options += ["-o", "ConnectTimeout=5"]
        return ["ssh", "-i", str(self.key), *options, f"{user}@{self.address}", *command]

    def run(self, *command: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command line on the machine over SSH and capture what it prints."""
        return subprocess.run(self.ssh_command(*command), capture_output=True, text=True, timeout=timeout, check=check)

    def wait_for_ssh(self, seconds: float = 60) -> None:
        """Wait until a login works.

        Raises:
            BuildError: it did not within `seconds`, or the machine stopped.
        """
        if (
            not _wait(lambda: not self.running or self.run("true", check=False).returncode == 0, seconds)
            or not self.running
        ):
            raise BuildError(f"machine {self.name} cannot be reached by SSH", f"less {self.console}")

    def instance(self) -> dict[str, Any]:
        """Addresses for scripts: the content of `build/instance.json`."""
        product = manifest.load()
        urls = {name: f"http://{self.address}:{product.ports[name].port}" for name in ("chat", "api", "sandbox")}
        return {
            "name": self.name,
            "host": self.address,
            "chat_url": urls["chat"],
            "api_url": f"{urls['api']}/v1",
            "sandbox_url": urls["sandbox"],
            "ssh": {
                "user": product.os.default_user,
                "host": self.address,
                "port": product.ports["ssh"].port,
                "key_file": str(self.key),
            },
        }


def _digest(user_data: str | None) -> str:
    return hashlib.sha256((user_data or "").encode()).hexdigest()[:12]


def make_key(directory: Path) -> Path:
    """The SSH key pair of a machine, made once; returns the private key's path."""
    key = directory / "id_ed25519"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "aisandbox", "-f", str(key)], check=True)
    return key


def machines() -> list[Machine]:
    """All machines of this checkout, running or not."""
    return [Machine(path.parent.name) for path in sorted(MACHINES.glob("*/machine.json"))]


def _kill(pid: int) -> None:
    """Kill nspawn with the machine's first process, which takes all others of the machine with it."""
    nspawn = _children(pid)
    for process in (*(inner for outer in nspawn for inner in _children(outer)), *nspawn, pid):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False
