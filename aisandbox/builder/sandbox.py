"""Runs the sandbox's container with podman: behind `make sandbox-up` and `make sandbox-down`."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.builder import archive
from aisandbox.builder.archive import Image
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import cache_directory
from aisandbox.builder.progress import Phases

PORT = manifest.load().ports["sandbox"].port
HOME = manifest.load().paths.data / "sandbox"
WORKSPACE = manifest.REPOSITORY / "workspace"
PARTS = ("shell", "file", "code", "browser", "vnc", "cdp", "jupyter", "code-server", "mcp")
"""What must work before the sandbox counts as up."""
READY_SECONDS = 20.0
STOP_SECONDS = 90
"""Until what still runs is killed: hooks of the sandbox have 60."""
FIRST_USER = 1000
"""Who the sandbox is when the workspace belongs to root: what runs in it never is."""
RIGHTS = ("SETUID", "SETGID", "SETPCAP")
"""Capabilities that its first process gives up as it becomes the workspace's owner."""
PLENTY = 20000
"""Open files, and processes, of a container whose host forbids podman's own limits."""
ENGINE_FAILED = (125, 126, 127)
"""podman's own exit statuses; others are the container's."""


@dataclass(frozen=True)
class Container:
    """A container of the sandbox by name. `port` is where it is published, on loopback."""

    name: str = f"{manifest.load().product.id}-sandbox"
    port: int = PORT
    workspace: Path = WORKSPACE
    memory: str = "4g"

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def volume(self, user: int) -> str:
        """Named volume of its state; each user has one, since nobody else could write to it."""
        return f"{self.name}-{user}"

    def facts(self) -> dict[str, Any] | None:
        """What podman knows of it; None when there is no such container."""
        result = podman("container", "inspect", self.name, check=False)
        return json.loads(result.stdout)[0] if result.returncode == 0 else None

    @property
    def running(self) -> bool:
        facts = self.facts()
        return bool(facts and facts["State"]["Running"])


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman.

    Raises:
        BuildError: it is not installed, or fails.
    """
    if not shutil.which("podman"):
        raise BuildError("podman is not installed", "scripts/setup.sh container   (or: apt-get install podman)")
    result = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False)
    if check and result.returncode:
        raise BuildError(_reason(result), f"run it by hand to see more: podman {' '.join(arguments)}")
    return result


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    return (result.stderr.strip().splitlines() or [f"podman failed with status {result.returncode}"])[-1]


def load(image: Image, phases: Phases) -> str:
    """Hand the image to podman unless it has it; returns its name.

    Raises:
        BuildError: it could not be written or loaded.
    """
    if podman("image", "exists", image.reference, check=False).returncode:
        folder = cache_directory() / "container" / f"image-{os.getpid()}"
        try:
            archive.write_folder(image, folder, phases)
            with phases.phase("hand it to podman", 60):
                identity = podman("pull", "--quiet", f"dir:{folder}").stdout.split()[-1]
                podman("tag", identity, image.reference, image.latest)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for name in podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", image.name).stdout.split():
            if name not in (image.reference, image.latest):
                # One that a container still uses stays.
                podman("image", "rm", name, check=False)
    else:
        phases.note("image", f"nothing changed, {image.reference} is there")
    return image.reference


def up(container: Container, image: Image, phases: Phases, timeout: float) -> None:
    """Start the container unless it already runs this image, and wait until every part works.

    Raises:
        BuildError: the port is taken, podman cannot start it, or a part does not come up in time.
    """
    reference = load(image, phases)
    facts = container.facts()
    if facts and facts["State"]["Running"] and _same(facts, container, reference):
        phases.note("start", "the container is already running")
    else:
        if facts:
            down(container)
        _start(container, reference)
    missing = {"server": "starting"}
    with phases.phase("start the sandbox", READY_SECONDS, lambda: "waiting for " + ", ".join(missing)):
        deadline = time.monotonic() + timeout
        while missing:
            if not container.running:
                raise BuildError(f"the container stopped: {_last_words(container)}", f"podman logs {container.name}")
            if time.monotonic() > deadline:
                raise BuildError(
                    f"not ready after {timeout:.0f} s: {', '.join(missing)}", f"podman logs {container.name}"
                )
            time.sleep(0.2)
            missing = _missing(container)


def down(container: Container) -> bool:
    """Stop and remove the container; its workspace and its volume stay. Returns whether there was one."""
    if not container.facts():
        return False
    podman("stop", container.name, check=False)
    podman("rm", "--force", "--volumes=false", container.name)
    return True


def _same(facts: dict[str, Any], container: Container, reference: str) -> bool:
    bindings = facts["HostConfig"]["PortBindings"].get(f"{PORT}/tcp") or [{}]
    sources = {mount["Destination"]: mount["Source"] for mount in facts["Mounts"]}
    return (
        facts["ImageName"] == reference
        and bindings[0].get("HostPort") == str(container.port)
        and sources.get(str(manifest.load().paths.workspace)) == str(container.workspace)
    )


def _start(container: Container, reference: str) -> None:
    try:
        socket.create_server(("127.0.0.1", container.port)).close()
    except OSError as error:
        raise BuildError(
            f"port {container.port} cannot be used: {error.strerror}",
            f"choose another: make sandbox-up PORT={container.port + 1}",
        ) from error
    user = _own(container.workspace)
    last = ""
    for options in host_options(container):
        result = podman("run", *_arguments(container, user), *options, reference, check=False)
        if result.returncode not in ENGINE_FAILED:
            return
        last = _reason(result)
        podman("rm", "--force", container.name, check=False)
    raise BuildError(f"podman could not start the container: {last}", "podman info; podman run --rm IMAGE true")


def _own(workspace: Path) -> int:
    """Make the workspace if it is missing; returns its owner, who the sandbox is to be."""
    if not workspace.exists():
        workspace.mkdir(parents=True)
        above = workspace.parent.stat()
        os.chown(workspace, above.st_uid, above.st_gid)
    owner = workspace.stat()
    if owner.st_uid:
        return owner.st_uid
    os.chown(workspace, FIRST_USER, FIRST_USER)
    return FIRST_USER


def _arguments(container: Container, user: int) -> list[str]:
    """What every host understands. compose.yaml says the same for Docker."""
    paths = manifest.load().paths
    return [
        "--detach", "--name", container.name,
        "--publish", f"127.0.0.1:{container.port}:{PORT}",
        # It becomes the owner of the workspace; the server, somebody else, too (sandbox_api/supervise.py).
        "--user", "0:0",
        "--read-only", "--tmpfs", "/tmp:rw,exec,mode=1777",  # noqa: S108 - the container's own
        "--tmpfs", "/run/sandbox:rw,mode=1777",
        "--volume", f"{container.volume(user)}:{HOME}",
        "--volume", f"{container.workspace}:{paths.workspace}",
        "--security-opt", "no-new-privileges", "--cap-drop", "all",
        *(word for right in RIGHTS for word in ("--cap-add", right)),
        "--shm-size", "512m",
        "--stop-timeout", str(STOP_SECONDS),
    ]  # fmt: skip


def host_options(container: Container) -> Iterator[list[str]]:
    """Options that hosts differ in, best first: resource limits, and what some hosts cannot do without.

    crun refuses hosts with hybrid cgroups, and containers may not raise limits above those of this process.
    """
    limits = ["--pids-limit", "4096", "--memory", container.memory]
    lowered = ["--runtime", "runc"]
    for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(kind)[1]
        most = PLENTY if hard == resource.RLIM_INFINITY else min(PLENTY, hard)
        lowered += ["--ulimit", f"{name}={most}:{most}"]
    yield limits
    yield [*limits, *lowered]
    yield lowered


def _missing(container: Container) -> dict[str, str]:
    """Parts that do not work yet, and how they are."""
    url = f"http://127.0.0.1:{container.port}/ready?need={','.join(PARTS)}"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            json.load(response)
    except urllib.error.HTTPError as error:
        try:
            missing = json.load(error)["data"]["missing"]
        except (ValueError, KeyError, TypeError):
            return {"server": str(error.code)}
        return {name: state["status"] for name, state in missing.items()}
    except (OSError, ValueError):
        return {"server": "starting"}
    return {}


def _last_words(container: Container) -> str:
    result = podman("logs", "--tail", "3", container.name, check=False)
    return " / ".join((result.stdout + result.stderr).strip().splitlines()) or "no output"


def summary(container: Container) -> str:
    """Addresses for a person."""
    return "\n".join(
        (
            "",
            f"  Sandbox   {container.url}",
            f"  Desktop   {container.url}/vnc/index.html",
            f"  Jupyter   {container.url}/jupyter/lab",
            f"  VS Code   {container.url}/code-server/",
            f"  API       {container.url}/v1/docs",
            f"  MCP       {container.url}/mcp",
            f"  Files     {container.workspace}   (/workspace inside)",
            "",
            "  Only this machine can reach it.   Stop: make sandbox-down   Logs: podman logs " + container.name,
            "",
        )
    )
