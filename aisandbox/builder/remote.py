"""A machine as one has it at hand: an address and a key to log in with."""

from __future__ import annotations

import hashlib
import os
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.builder.errors import BuildError
from aisandbox.builder.waiting import wait_until

CONNECTIONS = Path("/run/aisandbox-build/ssh")
"""Sockets of connections that commands share: a login costs both sides more than most commands."""
ALIVE = ["-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=2"]
"""A connection to a machine that is gone ends within seconds."""


class Remote(ABC):
    """Logging in, whatever the machine runs on."""

    name: str

    @property
    @abstractmethod
    def address(self) -> str: ...

    @property
    @abstractmethod
    def user(self) -> str:
        """Who is logged in."""

    @property
    @abstractmethod
    def key(self) -> Path:
        """Private SSH key."""

    @property
    @abstractmethod
    def console(self) -> Path:
        """What the machine has written to its console."""

    @property
    @abstractmethod
    def running(self) -> bool: ...

    def ssh_command(self, *command: str) -> list[str]:
        """The argv that runs `command` (or a shell) on the machine."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        options += ["-o", "ConnectTimeout=5"]
        return ["ssh", "-i", str(self.key), *options, f"{self.user}@{self.address}", *command]

    def run(self, *command: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command line on the machine over SSH and capture what it prints."""
        program, *arguments = self.ssh_command(*command)
        return subprocess.run(
            [program, *self._shared_connection(), *arguments], capture_output=True, text=True, timeout=timeout,
            check=check,
        )  # fmt: skip

    def hang_up(self) -> None:
        """End the connection that commands share; call it when the machine goes."""
        if self._connection.exists():
            command = ["ssh", "-o", f"ControlPath={self._connection}", "-O", "exit", self.address]
            subprocess.run(command, capture_output=True, check=False)

    @property
    def _connection(self) -> Path:
        login = hashlib.sha256(f"{self.user}@{self.address} {self.key}".encode()).hexdigest()[:16]
        return CONNECTIONS / login

    def _shared_connection(self) -> list[str]:
        """Options of SSH that use the shared connection, which is made when there is none."""
        if os.geteuid() != 0:
            return []
        options = ["-o", f"ControlPath={self._connection}"]
        if not self._connection.exists():
            CONNECTIONS.mkdir(parents=True, exist_ok=True, mode=0o700)
            program, *arguments = self.ssh_command()
            # In the background it would keep our pipes open. Should it fail, the command itself says why.
            quiet = subprocess.DEVNULL
            master = [program, "-M", "-N", "-f", *options, *ALIVE, *arguments]
            subprocess.run(master, stdin=quiet, stdout=quiet, stderr=quiet, check=False)
        return options

    def wait_for_ssh(self, seconds: float = 60) -> None:
        """Wait until a login works.

        Raises:
            BuildError: it did not within `seconds`, or the machine stopped.
        """
        if (
            not wait_until(lambda: not self.running or self.run("true", check=False).returncode == 0, seconds)
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
                "user": self.user,
                "host": self.address,
                "port": product.ports["ssh"].port,
                "key_file": str(self.key),
            },
        }
