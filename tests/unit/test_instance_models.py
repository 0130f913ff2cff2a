"""`aisandbox models`, against a small hub."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from aisandbox.instance.choose import configure
from aisandbox.instance.cli import app
from aisandbox.instance.fit import model
from aisandbox.instance.places import Places
from tests.support import appliance
from tests.support.appliance import GUIDE, MANIFEST
from tests.support.deployments import locate
from tests.support.hub import Hub, running

WEIGHTS = bytes(range(256)) * 4096


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path / "root")


@pytest.fixture
def server(tmp_path: Path, places: Places) -> Iterator[Hub]:
    """A hub that the appliance is set to."""
    folder = tmp_path / "hub" / "acme" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text("{}")
    with running(tmp_path / "hub") as hub:
        appliance.options(places, f"hub_endpoint: {hub.endpoint}\n")
        configure.apply(places, MANIFEST)
        model.fetch(places, MANIFEST)
        yield hub


def run(places: Places, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--root", str(places.root), "models", *arguments])


def listed(places: Places) -> dict[str, dict[str, Any]]:
    return {entry["model"]: entry for entry in json.loads(run(places, "list", "--json").stdout)}


def test_a_model_is_pulled_listed_and_removed(places: Places, server: Hub) -> None:
    assert "acme/tiny" not in listed(places)
    result = run(places, "pull", "acme/tiny")
    assert (result.exit_code, result.stdout.split(" at commit ")[0]) == (0, "acme/tiny is on disk,")
    commit = result.stdout.split()[-1].rstrip(".")
    entry = listed(places)["acme/tiny"]
    assert (entry["complete"], entry["commits"], entry["chosen"], entry["listed"]) == (True, [commit], False, False)
    assert entry["size_bytes"] >= len(WEIGHTS)
    assert "acme/tiny" in run(places, "list").stdout
    sent = server.sent
    again = json.loads(run(places, "pull", "acme/tiny", "--json").stdout)
    assert again == {"model": "acme/tiny", "folder": again["folder"], "commit": commit}
    assert server.sent == sent, "repeating is a no-op"
    assert json.loads(run(places, "remove", "acme/tiny", "--json").stdout) == {"model": "acme/tiny", "removed": True}
    assert "acme/tiny" not in listed(places)
    assert not list(places.hub_cache.rglob("*.safetensors"))
    again_removed = run(places, "remove", "acme/tiny")
    assert (again_removed.exit_code, again_removed.stdout) == (0, "acme/tiny is not on disk.\n")


def test_pulling_brings_what_is_new(places: Places, server: Hub) -> None:
    first = json.loads(run(places, "pull", "acme/tiny", "--json").stdout)["commit"]
    (server.folder / "acme" / "tiny" / "tokenizer.json").write_text("[]")
    sent = server.sent
    second = json.loads(run(places, "pull", "acme/tiny", "--json").stdout)["commit"]
    assert first != second
    assert server.sent - sent < 1000, "what has stayed the same is not fetched again"


def test_the_embedded_model_and_the_list(places: Places, server: Hub) -> None:
    entry = listed(places)[GUIDE]
    assert (entry["embedded"], entry["complete"], entry["chosen"], entry["serving"]) == (True, True, True, True)
    assert next(iter(listed(places))) == GUIDE, "what is in use comes first"
    needy = next(model for model in MANIFEST.models if model.gpu_memory_gib)
    entry = listed(places)[needy.id]
    assert (entry["fits"], entry["gpu_memory_gib"], entry["license"]) == (False, needy.gpu_memory_gib, needy.license)
    table = run(places, "list").stdout
    assert needy.id in table
    assert "does not fit" in table


def test_what_is_in_use_is_not_removed(places: Places, server: Hub) -> None:
    result = run(places, "remove", GUIDE)
    assert (result.exit_code, "came with the image" in result.stderr) == (2, True)
    locate(places, places.hub_cache / "models--acme--tiny" / "snapshots" / "c")
    result = run(places, "remove", "acme/tiny")
    assert (result.exit_code, "acme/tiny is in use" in result.stderr) == (2, True)


def test_failures_are_told_with_their_fix(places: Places, server: Hub) -> None:
    result = run(places, "pull", "acme/tinny")
    assert result.exit_code == 2
    assert "There is no model acme/tinny" in result.stderr
    assert "Did you mean acme/tiny?" in result.stderr
    server.faults.unavailable = 10**6
    result = run(places, "pull", "acme/tiny")
    assert result.exit_code == 1
    assert "answered 503" in result.stderr
    assert "run it again" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="another account needs root")
def test_files_belong_to_the_account_that_serves(tmp_path: Path, server: Hub) -> None:
    from aisandbox.instance.fetch.download import Download
    from aisandbox.instance.fetch.request import Request

    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    store = tmp_path / "owned" / "hub"
    store.mkdir(parents=True)
    for folder in (store, store.parent):
        os.chown(folder, 65534, 65534)
    with Download(Request("acme/tiny", endpoint=server.endpoint), store, user="nobody") as download:
        download.look_up()
        list(download.fetch())
    assert {path.lstat().st_uid for path in store.rglob("*")} == {65534}
