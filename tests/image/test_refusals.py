"""What a person reads when a bake cannot be done."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from aisandbox.builder.layers import Layer
from tests.image.builder import Builder


def fake(folder: Path, program: str, says: str) -> None:
    """A program that only says its version."""
    path = folder / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """An empty cache, so that there is something to bake."""
    return Builder(cache=tmp_path / "cache")


def test_not_root(builder: Builder) -> None:
    # Somebody else, who can still read the checkout wherever it lies.
    builder.prefix = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
    message, fix = builder.refusal("bake")
    assert "baking needs root" in message
    assert fix == "run it through sudo: sudo make up"


@pytest.mark.parametrize("character", [",", ":"])
def test_a_path_that_cannot_be_mounted(builder: Builder, tmp_path: Path, character: str) -> None:
    builder.cache = tmp_path / f"one{character}two"
    message, fix = builder.refusal("bake")
    assert str(builder.cache) in message and "overlay" in message
    assert "AISANDBOX_CACHE" in fix


def test_no_space(builder: Builder) -> None:
    builder.cache.mkdir()
    mount = 'mount -t tmpfs -o size=64m tmpfs "$AISANDBOX_CACHE" && exec "$@"'
    builder.prefix = ("unshare", "--mount", "sh", "-c", mount, "sh")
    message, fix = builder.refusal("bake")
    assert f"{builder.cache} has 0.1 GiB free; a cpu bake needs" in message
    assert "AISANDBOX_CACHE" in fix


@pytest.mark.parametrize(
    ("says", "expected"),
    [("Packer v1.4.5", "Packer 1.4.5 is too old; 1.6.6 or later is needed"), ("packer 2", "is not HashiCorp Packer")],
    ids=["old", "another program"],
)
def test_wrong_packer(builder: Builder, tmp_path: Path, says: str, expected: str) -> None:
    fake(tmp_path / "bin", "packer", says)
    builder.variables["PATH"] = f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    message, fix = builder.refusal("bake")
    assert expected in message
    assert fix.split("   ")[0] == "apt-get install packer"


def test_no_packer(builder: Builder, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("mmdebstrap", "systemd-nspawn", "unshare"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    builder.variables["PATH"] = str(tools)
    message, fix = builder.refusal("bake")
    assert message == "packer is not installed"
    assert "apt-get install packer" in fix


def test_old_ansible(builder: Builder, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    fake(environment / "bin", "ansible-playbook", "ansible-playbook [core 2.10.8]")
    builder.python = environment / "bin" / "python"
    builder.python.symlink_to(sys.executable)
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), environment)
    (environment / "lib").symlink_to(Path(sys.prefix, "lib"))
    message, fix = builder.refusal("bake")
    assert message == "Ansible core 2.10.8 is too old; 2.16 or later is needed"
    assert fix == "scripts/setup.sh builder"


def test_registry_unreachable(builder: Builder, image: Layer, tmp_path: Path) -> None:
    below = next(layer for layer in image.stack if layer.name == "open-webui").stack[:-1]
    builder.lend(below, downloads=())
    closed = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": ""}
    builder.variables |= closed | {"UV_HTTP_RETRIES": "0"}
    message, fix = builder.refusal("bake", "--until=open-webui")
    assert "a package registry could not be reached" in message
    assert "127.0.0.1:9" in message
    assert "pip's settings" in fix
    assert builder.traces() == []
