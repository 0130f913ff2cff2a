"""The container of the whole appliance, run by podman from its layers as they lie in the cache.

Its image is gigabytes: what the role `container` says of it becomes podman's arguments here, as
`aisandbox.builder.archive` makes Docker's configuration of it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.builder import sandbox
from aisandbox.builder.archive import Image
from aisandbox.builder.container import OVERLAY_OPTIONS
from aisandbox.builder.sandbox import Container, podman

MANIFEST = manifest.load()
DATA = MANIFEST.paths.data
CAPABILITIES = "CHOWN,DAC_OVERRIDE,FOWNER,KILL,SETGID,SETPCAP,SETUID"
"""All that it needs; engines give these, and some more, unless told otherwise."""


@dataclass
class Whole:
    """A container by that name, whose ports are published on an address of this host's own."""

    name: str
    image: Image
    root: Path
    """The image's root file system, writable."""
    address: str
    """One of loopback's, so that ports keep their numbers and nobody else uses them."""

    @property
    def volume(self) -> str:
        return f"{self.name}-data"

    def run(self, *options: str, **environment: str) -> None:
        """Start it anew; its volume stays."""
        podman("rm", "--force", "--volumes=false", self.name, check=False)
        said = json.loads(self.image.said.read_text())
        arguments = ["--detach", "--name", self.name, "--volume", f"{self.volume}:{said['volumes'][0]}"]
        arguments += [f"--publish={self.address}:{port}:{port}" for port in said["ports"]]
        arguments += [f"--env={key}={value}" for key, value in (said["environment"] | environment).items()]
        arguments += ["--cap-drop=all", f"--cap-add={CAPABILITIES}", "--user", said["user"]]
        arguments += ["--health-cmd", said["healthcheck"], "--health-interval=disable"]
        arguments += ["--workdir", said["working_directory"], "--entrypoint", json.dumps(said["entrypoint"]), *options]
        result = None
        for host in sandbox.host_options(Container(memory="16g")):
            result = podman("run", *arguments, *host, "--rootfs", str(self.root), check=False)
            if result.returncode == 0:
                return
            podman("rm", "--force", "--volumes=false", self.name, check=False)
        raise AssertionError(result and result.stderr)

    def exec(self, command: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """A shell command inside."""
        return podman("exec", "--user", user, self.name, "sh", "-c", command, check=False)

    def output(self, command: str, user: str = "root") -> str:
        """What it prints; the test fails with its messages when it fails."""
        result = self.exec(command, user)
        assert result.returncode == 0, f"{command}: exit {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout.strip()

    def status(self) -> dict[str, Any]:
        overview: dict[str, Any] = json.loads(self.output("aisandbox status --json"))
        return overview

    def logs(self) -> str:
        result = podman("logs", self.name)
        return result.stdout + result.stderr

    def stop(self) -> float:
        """Stop it as engines do by default. Returns the seconds that it took; it was killed if that is ten."""
        began = time.monotonic()
        podman("stop", "--time", "10", self.name)
        return time.monotonic() - began

    def pid(self, program: str) -> int:
        """The process of a program, on this host; 0 while there is none."""
        opt = MANIFEST.paths.opt
        told = self.exec(
            f"{opt}/envs/supervisor/bin/supervisorctl -c {opt}/container/supervisord.conf pid services:{program}"
        ).stdout.strip()
        return int(told) if told.isdigit() else 0


@contextmanager
def mounted(image: Image, folder: Path) -> Iterator[Path]:
    """The image's root file system with an upper directory of its own."""
    upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
    for directory in (upper, work, merged):
        directory.mkdir()
    options = f"lowerdir={image.lower},upperdir={upper},workdir={work},{OVERLAY_OPTIONS}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", "--lazy", str(merged)], check=True)


@contextmanager
def container(name: str, image: Image, folder: Path, address: str) -> Iterator[Whole]:
    """A container that has not been started yet; it and its volume go with the block."""
    with mounted(image, folder) as root:
        whole = Whole(name, image, root, address)
        try:
            yield whole
        finally:
            podman("rm", "--force", "--time", "3", name, check=False)
            podman("volume", "rm", "--force", whole.volume, check=False)
