"""The image, loaded once, and containers of it on ports of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from aisandbox.builder import archive, sandbox
from aisandbox.builder.archive import Image
from aisandbox.builder.progress import Phases
from aisandbox.builder.sandbox import Container
from tests.support.sandbox import free_port

PATIENCE = 180.0
Start = Callable[..., Container]


@pytest.fixture(scope="package")
def image() -> Image:
    """Only layers that are not in the cache are baked."""
    with Phases() as phases:
        baked = archive.bake_image(phases)
        sandbox.load(baked, phases)
    return baked


@pytest.fixture(scope="package")
def start(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a container and waits until all of it works; both go with these tests."""
    with ExitStack() as stack:

        def started(name: str, workspace: Path | None = None) -> Container:
            workspace = workspace or tmp_path_factory.mktemp(name)
            container = Container(f"aisandbox-test-{name}", free_port(), workspace)
            stack.callback(remove, container)
            with Phases() as phases:
                sandbox.up(container, image, phases, PATIENCE)
            return container

        yield started


@pytest.fixture(scope="package")
def container(start: Start) -> Container:
    """A container as `make sandbox-up` makes it."""
    return start("session")


@pytest.fixture
def client(container: Container) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=container.url, timeout=60) as client:
        yield client


def remove(container: Container) -> None:
    sandbox.down(container)
    listing = sandbox.podman("volume", "ls", "--quiet", "--filter", f"name={container.name}")
    for volume in listing.stdout.split():
        sandbox.podman("volume", "rm", "--force", volume)


def inside(container: Container, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in the container, beside its programs and as their user."""
    owner = str(container.workspace.stat().st_uid)
    return sandbox.podman("exec", "--user", owner, container.name, "sh", "-c", command, check=False)


def output(container: Container, command: str) -> str:
    """What it prints; the test fails with its messages when it fails."""
    result = inside(container, command)
    assert result.returncode == 0, f"{command}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout.strip()
