"""Bringing the model, with the real library against a small hub."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aisandbox.instance import configure, engine_sync, files, hub, model, systemd
from aisandbox.instance.errors import UnobtainableError
from aisandbox.instance.places import Places
from tests.support import appliance
from tests.support.appliance import GUIDE, GUIDE_COMMIT, MANIFEST
from tests.support.hub import Hub, running

TOKEN = "hf_abcdefgh12345678"
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path / "root")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "hub" / "acme" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("[]")
    (folder / "README.md").write_text("read me")
    (folder / "pytorch_model.bin").write_bytes(WEIGHTS)
    with running(tmp_path / "hub") as hub_server:
        yield hub_server


@pytest.fixture(autouse=True)
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The credential as systemd hands it over: an empty file without a token."""
    path = tmp_path / "credentials" / "hf_token"
    path.parent.mkdir()
    path.write_text("")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return path


def choose(places: Places, server: Hub, **choice: object) -> None:
    entries = {"model": "acme/tiny", "hub_endpoint": server.endpoint, **choice}
    appliance.options(places, "".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items()))
    configure.apply(places, MANIFEST)


def status(places: Places) -> dict[str, Any]:
    return files.read_json(places.status("model")) or {}


def engine(places: Places) -> dict[str, Any]:
    return files.read_json(places.engine) or {}


class Naps:
    """Stands in for sleeping; `then` is called at the nap of that number."""

    def __init__(self, then: dict[int, Any] | None = None) -> None:
        self.seconds: list[float] = []
        self.then = then or {}

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        assert len(self.seconds) < 20, "tries for ever"
        self.then.get(len(self.seconds), lambda: None)()


def test_the_embedded_model_needs_no_network(places: Places) -> None:
    configure.apply(places, MANIFEST)
    model.fetch(places)
    folder = Path(engine(places)["model"])
    assert folder.parent.parent == places.hub_cache / "models--aisandbox--guide"
    assert (folder / "config.json").read_text() == "{}"
    assert (folder / "config.json").is_symlink()
    assert engine(places)["served_names"] == [GUIDE]
    assert status(places)["state"] == "done"
    assert [path.name for path in places.hub_cache.iterdir()] == ["models--aisandbox--guide"]


def test_a_newer_image_brings_its_own_embedded_model(places: Places) -> None:
    old = places.hub_cache / "models--aisandbox--guide"
    (old / "snapshots" / "old").mkdir(parents=True)
    configure.apply(places, MANIFEST)
    model.fetch(places)
    assert [path.name for path in (old / "snapshots").iterdir()] == [GUIDE_COMMIT]


def test_an_image_without_its_model_says_so(places: Places) -> None:
    shutil.rmtree(places.baked_models)
    configure.apply(places, MANIFEST)
    model.fetch(places)
    assert status(places)["state"] == "failed"
    assert not places.engine.exists()


def test_a_model_is_downloaded_with_only_what_is_needed(places: Places, server: Hub) -> None:
    choose(places, server, served_name="mine", max_model_len=512)
    model.fetch(places)
    folder = Path(engine(places)["model"])
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert engine(places)["served_names"] == ["mine"]
    assert engine(places)["args"] == ["--max-model-len", "512"]
    assert (status(places)["state"], status(places)["serving"]) == ("done", "acme/tiny")


def test_a_complete_model_needs_no_network_at_all(places: Places, server: Hub) -> None:
    choose(places, server)
    model.fetch(places)
    first = places.engine.read_bytes()
    places.engine.unlink()
    server.requests.clear()
    model.fetch(places)
    assert not server.requests
    assert places.engine.read_bytes() == first


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_an_incomplete_model_is_completed(places: Places, server: Hub, damage: str) -> None:
    choose(places, server)
    model.fetch(places)
    weights = Path(engine(places)["model"]) / "model.safetensors"
    blob = weights.resolve()
    weights.unlink()
    blob.unlink() if damage == "missing" else blob.write_bytes(WEIGHTS[:10])
    if damage == "short":
        weights.symlink_to(blob)
    model.fetch(places)
    assert weights.read_bytes() == WEIGHTS


def test_progress_is_reported(places: Places, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(hub, "ESTIMATE_AFTER_SECONDS", 0.0)
    seen: list[hub.Progress] = []
    request = hub.Request("acme/tiny", "main", server.endpoint, None)
    hub.fetch(request, places.hub_cache, seen.append)
    total = len(WEIGHTS) + 4
    assert [progress.bytes_done for progress in seen] == sorted(progress.bytes_done for progress in seen)
    assert (seen[-1].bytes_done, seen[-1].bytes_total) == (total, total)
    assert seen[-1].bytes_per_second > 0
    assert seen[-1].eta_s == 0


def test_an_interrupted_download_resumes(places: Places, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "CHUNK_BYTES", 64 * 1024)
    server.faults.cut_after = len(WEIGHTS) // 2
    choose(places, server)
    model.fetch(places, Naps())
    assert (Path(engine(places)["model"]) / "model.safetensors").read_bytes() == WEIGHTS
    assert server.sent < 1.3 * len(WEIGHTS)


def test_a_hub_that_is_down_is_tried_until_it_is_back(places: Places, server: Hub) -> None:
    server.faults.unavailable = 10**6
    choose(places, server)
    messages: list[str] = []

    def note() -> None:
        messages.append(status(places)["message"])

    def recover() -> None:
        server.faults.unavailable = 0

    naps = Naps({1: note, 6: recover})
    model.fetch(places, naps)
    assert naps.seconds == [5, 10, 20, 40, 60, 60]
    assert messages == [f"{server.endpoint} answered 503. Trying again in 5 s."]
    assert status(places)["state"] == "done"


def test_a_hub_may_say_how_long_to_wait(places: Places, server: Hub) -> None:
    server.faults.unavailable, server.faults.status, server.faults.retry_after_s = 10**6, 429, 33

    def recover() -> None:
        server.faults.unavailable = 0

    choose(places, server)
    naps = Naps({1: recover})
    model.fetch(places, naps)
    assert naps.seconds == [33]


def test_no_network_is_told_and_tried_again(places: Places, server: Hub) -> None:
    choose(places, server, hub_endpoint="http://127.0.0.1:9")
    naps = Naps({2: lambda: (_ for _ in ()).throw(KeyboardInterrupt)})
    with pytest.raises(KeyboardInterrupt):
        model.fetch(places, naps)
    assert status(places)["state"] == "running"
    assert "http://127.0.0.1:9 cannot be reached" in status(places)["message"]


@pytest.mark.parametrize(
    ("choice", "message", "fix"),
    [
        ({"model": "acme/tinny"}, "There is no model acme/tinny", "Check organisation and name"),
        ({"model": "acme/a..b"}, "There is no model acme/a..b", "Check organisation and name"),
        ({"revision": "v9"}, "has no revision v9", "--unset revision"),
    ],
)
def test_a_typo_falls_back_to_the_embedded_model(
    places: Places, server: Hub, choice: dict[str, object], message: str, fix: str
) -> None:
    choose(places, server, **choice)
    model.fetch(places)
    report = status(places)
    assert (report["state"], report["serving"]) == ("failed", GUIDE)
    assert message in report["message"]
    assert f"Serving {GUIDE} instead" in report["message"]
    assert fix in report["fix"]
    assert engine(places)["served_names"][0] == GUIDE
    assert "models--aisandbox--guide" in engine(places)["model"]
    assert "--max-model-len" not in engine(places)["args"]


def test_the_chosen_name_answers_as_well_after_a_failure(places: Places, server: Hub) -> None:
    choose(places, server, model="acme/tinny", served_name="mine")
    model.fetch(places)
    assert engine(places)["served_names"] == [GUIDE, "mine"]


def test_what_is_served_stays_when_the_next_model_fails(places: Places, server: Hub) -> None:
    choose(places, server)
    model.fetch(places)
    before = places.engine.read_bytes()
    choose(places, server, model="acme/tinny", served_name="mine")
    model.fetch(places)
    assert places.engine.read_bytes() == before
    assert "Serving acme/tiny instead" in status(places)["message"]


def test_gated_models(places: Places, server: Hub, token: Path) -> None:
    server.faults.gated, server.faults.token = {"acme/tiny"}, TOKEN
    choose(places, server)
    model.fetch(places)
    assert "needs the access token of an account that accepted its terms" in status(places)["message"]
    assert f"{server.endpoint}/acme/tiny" in status(places)["fix"]
    token.write_text("hf_wrongwrong")
    model.fetch(places)
    assert "refused the access token" in status(places)["message"]
    token.write_text(TOKEN)
    model.fetch(places)
    assert "may not use it" in status(places)["message"]
    assert TOKEN not in json.dumps(status(places))
    server.faults.accepted = {"acme/tiny"}
    model.fetch(places)
    assert status(places)["state"] == "done"


def test_a_model_without_loadable_weights_is_refused(places: Places, server: Hub) -> None:
    folder = server.folder / "acme" / "gguf"
    folder.mkdir()
    (folder / "model.gguf").write_text("x")
    choose(places, server, model="acme/gguf")
    model.fetch(places)
    assert "has no safetensors weights, which are needed here (it has .gguf)" in status(places)["message"]
    assert server.sent == 0


def test_too_small_a_disk_is_noticed_before_the_download(
    places: Places, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "FREE_BYTES_KEPT", 10**18)
    choose(places, server)
    model.fetch(places)
    assert "The disk is too small for acme/tiny" in status(places)["message"]
    assert server.sent == 0


def test_a_disk_that_fills_up_is_told_apart_from_the_network() -> None:
    request = hub.Request("acme/tiny", "main", None, None)
    explained = hub.explain(OSError(errno.ENOSPC, "No space left on device"), request)
    assert isinstance(explained, UnobtainableError)
    assert "it is full" in str(explained)


def test_something_else_at_the_address_is_explained(places: Places, server: Hub) -> None:
    (server.folder / "acme" / "tiny" / "config.json").unlink()
    choose(places, server, hub_endpoint=f"{server.endpoint}/elsewhere")
    model.fetch(places)
    assert status(places)["state"] == "failed"


def test_without_a_gpu_on_a_cuda_image_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aisandbox.instance.hardware._nvidia_gpus", lambda: ((), "Driver Not Loaded"))
    places = appliance.make(tmp_path / "cuda", "cuda")
    configure.apply(places, MANIFEST)
    model.fetch(places)
    assert status(places)["state"] == "failed"
    assert "no NVIDIA GPU" in status(places)["message"]
    assert not places.engine.exists()


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["model.safetensors", "config.json", "README.md"], {"model.safetensors", "config.json"}),
        (["m-1-of-2.safetensors", "m-2-of-2.safetensors", "a.bin"], {"m-1-of-2.safetensors", "m-2-of-2.safetensors"}),
        (["pytorch_model.bin", "training_args.bin", "vocab.txt"], {"pytorch_model.bin", "vocab.txt"}),
        (["model.safetensors", "consolidated.safetensors"], {"model.safetensors"}),
        (["consolidated.safetensors", "params.json"], {"consolidated.safetensors", "params.json"}),
        (["model.safetensors", "original/model.safetensors", "original/config.json"], {"model.safetensors"}),
        (["model.safetensors", "1_Pooling/config.json"], {"model.safetensors", "1_Pooling/config.json"}),
        (["model.gguf", "config.json"], set()),
        ([], set()),
    ],
)
def test_the_files_that_are_needed(names: list[str], wanted: set[str]) -> None:
    assert set(hub.wanted(names)) == wanted


def unit(active: str) -> tuple[systemd.Unit, ...]:
    return (systemd.Unit(name=systemd.VLLM, active=active, sub="", result="", restarts=0),)


@pytest.mark.parametrize(
    ("taken", "active", "needed"),
    [
        (None, "active", False),  # still imports
        ("", "active", False),  # waits, and will take it by itself
        ("same", "active", False),
        ("other", "active", True),
        (None, "failed", True),
    ],
)
def test_the_engine_is_restarted_only_when_it_must_be(
    places: Places, taken: str | None, active: str, needed: bool
) -> None:
    files.write_json(places.engine, {"model": "/m", "served_names": [], "args": []})
    if taken is not None:
        config = engine_sync.config_id(places.engine.read_bytes()) if taken == "same" else taken
        files.write_json(places.status("engine"), {"config": config})
    assert engine_sync.needed(places, unit(active)) is needed


def test_without_a_model_there_is_nothing_to_restart_for(places: Places) -> None:
    assert not engine_sync.needed(places, unit("failed"))
