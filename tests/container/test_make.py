"""`make sandbox-up`, `make sandbox-down`, and what they say when something is in the way."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from aisandbox.builder import archive, sandbox
from aisandbox.builder.archive import Image
from aisandbox.builder.progress import Phases
from aisandbox.builder.sandbox import Container
from aisandbox.builder.supply import cyclonedx_json, licence_report
from aisandbox.builder.supply.cyclonedx_json import NAME as SBOM
from aisandbox.manifest import REPOSITORY
from tests.container.conftest import remove
from tests.support.sandbox import free_port

NAME = "aisandbox-test-make"
ARCHIVE_BYTES = 800_000_000
"""Of the file that people copy to other machines; it was 3,079 MB uncompressed, while made of a machine."""


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--no-print-directory", *arguments, f"CONTAINER={NAME}"]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def named() -> Iterator[None]:
    yield
    remove(Container(NAME))


def test_up_and_down(image: Image, named: None, tmp_path: Path) -> None:
    port = free_port()
    arguments = [f"PORT={port}", f"WORKSPACE={tmp_path / 'workspace'}"]
    first = make("sandbox-up", *arguments)
    assert first.returncode == 0, first.stderr
    assert f"http://localhost:{port}" in first.stdout
    assert httpx.get(f"http://localhost:{port}/health").status_code == 200
    again = make("sandbox-up", *arguments)
    assert again.returncode == 0, again.stderr
    assert "already running" in again.stderr
    stopped = make("sandbox-down")
    assert stopped.returncode == 0, stopped.stderr
    assert not Container(NAME).facts()
    assert (tmp_path / "workspace").is_dir()
    assert "there is no container" in make("sandbox-down").stderr


def test_a_taken_port_is_told_with_the_way_out(image: Image, named: None, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = make("sandbox-up", f"PORT={port}", f"WORKSPACE={tmp_path}")
    assert refused.returncode != 0
    assert f"port {port} cannot be used" in refused.stderr
    assert f"PORT={port + 1}" in refused.stderr


def test_the_archive_is_dockers(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "sandbox.tar"
    with Phases() as phases:
        archive.write(image, path, phases, compressed=True)
    with tarfile.open(path) as opened:

        def content(name: str) -> bytes:
            member = opened.extractfile(name)
            assert member
            return member.read()

        (listing,) = json.loads(content("manifest.json"))
        config = json.loads(content(listing["Config"]))
        assert set(opened.getnames()) == {"manifest.json", listing["Config"], *listing["Layers"]}
        digests = [hashlib.sha256(gzip.decompress(content(name))).hexdigest() for name in listing["Layers"][1:]]
    assert f"{archive.NAME}:latest" in listing["RepoTags"]
    assert [f"sha256:{name.removesuffix('.tar.gz')}" for name in listing["Layers"]] == config["rootfs"]["diff_ids"]
    assert digests == [name.removesuffix(".tar.gz") for name in listing["Layers"][1:]]
    assert path.stat().st_size <= ARCHIVE_BYTES
    assert config["config"]["User"] == "1000:1000"
    assert config["config"]["ExposedPorts"] == {"8080/tcp": {}}
    assert sorted(config["config"]["Volumes"]) == sorted([str(sandbox.HOME), "/workspace"])
    assert config["config"]["Healthcheck"]["Test"][0] == "CMD-SHELL"
    beside = {file.name for file in tmp_path.iterdir()} - {path.name}
    assert beside == {f"sandbox.{name}" for name in ("sbom.spdx.json", SBOM, *licence_report.NAMES)}
    inside = cyclonedx_json.read(tmp_path / f"sandbox.{SBOM}")
    assert {"supervisor", "fastapi", "libnss-extrausers", "code-server"} <= {
        package.name for package in inside.packages
    }
    machines = {"cloud-init", "linux-image-cloud-amd64", "openssh-server", "sudo", "systemd", "nodejs"}
    assert not {"vllm", "nginx-light", *machines} & {package.name for package in inside.packages}
