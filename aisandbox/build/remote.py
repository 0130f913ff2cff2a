"""A machine as one has it at hand: an address and a key to log in with."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.build.errors import BuildError
from aisandbox.build.waiting import wait_until


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
        return subprocess.run(self.ssh_command(*command), capture_output=True, text=True, timeout=timeout, check=check)

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
