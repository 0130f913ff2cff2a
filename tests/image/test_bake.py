"""Baking again after a small change: only what the change reaches, also after an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aisandbox.builder.layers import TOP, Layer, Store
from tests.image.builder import Builder, interrupt, wait_for_text
from tests.support.checkout import copy_checkout
from tests.support.machines import wait_for

KEYS = (
    "import json; from aisandbox.builder.layers import TOP, load; "
    "print(json.dumps([layer.id for layer in load('cpu')[TOP].stack]))"
)


@pytest.fixture(scope="module")
def builder(image: Layer, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """A checkout with one more line in a late role, and a cache with all layers that this does not reach.

    Its owner writes files for himself only, speaks German, and gives folders names with blanks.
    """
    folder = tmp_path_factory.mktemp("bake") / "Müllers Würfel"
    folder.mkdir()
    builder = Builder(cache=folder / "cache", checkout=folder / "KI sandbox", umask=0o077)
    builder.variables |= {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"}
    copy_checkout(builder.checkout)
    with (builder.checkout / "roles" / "motd" / "tasks" / "main.yml").open("a") as tasks:
        tasks.write("\n- name: Say something new\n  ansible.builtin.debug:\n    msg: new\n")
    builder.lend(image.stack[:-1])
    return builder


@pytest.fixture(scope="module")
def missing(builder: Builder, image: Layer) -> str:
    """The one layer that the change reaches."""
    listing = subprocess.run([sys.executable, "-c", KEYS], cwd=builder.checkout, capture_output=True, check=True).stdout
    (changed,) = set(json.loads(listing)) - {layer.id for layer in image.stack}
    assert changed.startswith(f"{TOP}-")
    return str(changed)


def test_an_interrupted_bake_leaves_nothing(builder: Builder, missing: str) -> None:
    bake = builder.start("bake")
    wait_for_text(builder.checkout / "build" / "log" / f"{missing}.log", "TASK [gateway : Install nginx]")
    assert builder.traces()
    status, messages = interrupt(bake)
    assert status == 130, messages
    assert "interrupted: nothing is left mounted or running; the same command goes on from here" in messages
    assert "Traceback" not in messages
    # The kernel takes a moment to end a namespace, on a busy host some seconds.
    wait_for("the end of the namespaces", lambda: not builder.traces(), 30)
    assert not (builder.cache / "layers" / missing).exists()


def test_the_next_bake_does_the_rest_and_no_more(builder: Builder, missing: str) -> None:
    begun = time.monotonic()
    result = builder.run("bake")
    print(f"baked {missing} anew in {time.monotonic() - begun:.0f} s")
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stderr.splitlines() if ": started" in line and f"bake {TOP}:" not in line] == []
    layer = builder.cache / "layers" / missing
    assert json.loads((layer / "layer.json").read_text())["seconds"] > 1
    assert "Say something new" in (layer / "log").read_text()
    assert builder.traces() == []


def test_then_there_is_nothing_to_do(builder: Builder, missing: str) -> None:
    begun = time.monotonic()
    result = builder.run("bake")
    assert f"nothing changed, {missing} is there" in result.stderr
    assert time.monotonic() - begun < 10


def test_the_layer_has_the_same_files_with_the_same_rights(builder: Builder, missing: str, image: Layer) -> None:
    def listing(root: Path) -> set[str]:
        command = ["find", ".", "-printf", "%p %y %m %U %G\n"]
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
        return {line for line in found.splitlines() if not line.startswith(("./var/cache/", "./tmp/"))}

    assert listing(builder.cache / "layers" / missing / "root") ^ listing(Store().rootfs(image)) == set()


def test_nothing_of_the_builder_is_in_the_layer(builder: Builder, missing: str, image: Layer) -> None:
    root = builder.cache / "layers" / missing / "root"
    assert [str(path) for path in root.rglob("*") if str(builder.cache.parent) in str(path.relative_to(root))] == []
    # The layer `machine` empties it, and none above writes it.
    roots = (root, *(Store().rootfs(layer) for layer in image.stack[:-1]))
    written = (folder / "etc" / "machine-id" for folder in roots)
    assert [path.read_text() for path in written if path.is_file()] == [""]
    # What a layer removes from those below it is a device there, not a file.
    assert [path for path in Path(root, "etc", "ssh").glob("ssh_host_*") if path.is_file()] == []
