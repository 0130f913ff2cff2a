"""Bringing the model, with the real library against a small hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aisandbox.instance import files
from aisandbox.instance.choose import configure
from aisandbox.instance.deployment import Deployment, Gpu, Hardware, Serving
from aisandbox.instance.errors import UnobtainableError
from aisandbox.instance.fit import model, sizing
from aisandbox.instance.places import Places
from aisandbox.instance.run import services
from aisandbox.instance.serve import engine_sync
from tests.support import appliance
from tests.support.appliance import GUIDE, GUIDE_COMMIT, MANIFEST
from tests.support.deployments import located, serving
from tests.support.hub import Hub, running

TOKEN = "hf_abcdefgh12345678"
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path / "root")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "hub" / "acme" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text(json.dumps(CONFIG))
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


def told(places: Places) -> Deployment:
    """What the engine is told."""
    found = Deployment.load(places.located)
    assert found
    return found


def first(places: Places) -> Serving:
    """What it is to serve."""
    return told(places).attempts[0]


class Waits:
    """Stands in for sleeping: `seconds` has every wait; `then` is called as the wait of that number begins."""

    def __init__(self, places: Places, then: dict[int, Callable[[], None]] | None = None) -> None:
        self.seconds: list[int] = []
        self.reports: list[dict[str, Any]] = []
        self._places = places
        self._then = then or {}
        self._left = 0

    def __call__(self, seconds: float) -> None:
        report = status(self._places)
        assert seconds == 1
        if self._left == 0:
            self.seconds.append(report["retry_in_s"])
            self.reports.append(report)
            assert len(self.seconds) < 10, "tries for ever"
            self._then.get(len(self.seconds), lambda: None)()
        else:
            assert report["retry_in_s"] == self._left, "counts down"
        self._left = report["retry_in_s"] - 1


def test_the_embedded_model_needs_no_network(places: Places) -> None:
    configure.apply(places, MANIFEST)
    model.fetch(places, MANIFEST)
    folder = Path(first(places).folder)
    assert folder.parent.parent == places.hub_cache / "models--aisandbox--guide"
    assert (folder / "config.json").read_text() == "{}"
    assert (folder / "config.json").is_symlink()
    assert first(places).served_names == (GUIDE,)
    assert status(places)["state"] == "done"
    assert [path.name for path in places.hub_cache.iterdir()] == ["models--aisandbox--guide"]


def test_a_newer_image_brings_its_own_embedded_model(places: Places) -> None:
    old = places.hub_cache / "models--aisandbox--guide"
    (old / "snapshots" / "old").mkdir(parents=True)
    configure.apply(places, MANIFEST)
    model.fetch(places, MANIFEST)
    assert [path.name for path in (old / "snapshots").iterdir()] == [GUIDE_COMMIT]


def test_an_image_without_its_model_says_so(places: Places) -> None:
    shutil.rmtree(places.baked_models)
    configure.apply(places, MANIFEST)
    model.fetch(places, MANIFEST)
    assert status(places)["state"] == "failed"
    assert not places.located.exists()


def test_a_model_is_downloaded_with_only_what_is_needed(places: Places, server: Hub) -> None:
    choose(places, server, served_name="mine", max_model_len=512)
    model.fetch(places, MANIFEST)
    folder = Path(first(places).folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert first(places).served_names == ("mine",)
    assert "--max-model-len 512" in " ".join(first(places).args)
    assert (status(places)["state"], status(places)["serving"]) == ("done", "acme/tiny")


def test_a_complete_model_needs_no_network_at_all(places: Places, server: Hub) -> None:
    choose(places, server)
    model.fetch(places, MANIFEST)
    first = places.located.read_bytes()
    places.located.unlink()
    server.requests.clear()
    model.fetch(places, MANIFEST)
    assert not server.requests
    assert places.located.read_bytes() == first


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_an_incomplete_model_is_completed(places: Places, server: Hub, damage: str) -> None:
    choose(places, server)
    model.fetch(places, MANIFEST)
    weights = Path(first(places).folder) / "model.safetensors"
    blob = weights.resolve()
    weights.unlink()
    blob.unlink() if damage == "missing" else blob.write_bytes(WEIGHTS[:10])
    if damage == "short":
        weights.symlink_to(blob)
    model.fetch(places, MANIFEST)
    assert weights.read_bytes() == WEIGHTS


def test_a_changed_checksum_of_a_kept_file_is_noticed(places: Places, server: Hub) -> None:
    choose(places, server)
    model.fetch(places, MANIFEST)
    weights = (Path(first(places).folder) / "model.safetensors").resolve()
    weights.write_bytes(b"x" * len(WEIGHTS))
    model.fetch(places, MANIFEST)
    assert (Path(first(places).folder) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_is_down_is_tried_until_it_is_back(places: Places, server: Hub) -> None:
    server.faults.unavailable = 10**6
    choose(places, server)

    def recover() -> None:
        server.faults.unavailable = 0

    waits = Waits(places, {6: recover})
    model.fetch(places, MANIFEST, waits)
    assert waits.seconds == [5, 10, 20, 40, 60, 60]
    first = waits.reports[0]
    assert (first["state"], first["phase"], first["attempt"]) == ("running", "wait", 1)
    assert first["message"].startswith(f"{server.endpoint} answered 503. Trying again at ")
    assert [report.get("serving") for report in waits.reports] == [None, None, GUIDE, None, None, None]
    assert status(places)["state"] == "done"
    assert [entry.model for entry in told(places).candidates[1:]] == [GUIDE]


def test_a_hub_that_goes_on_being_down_leaves_the_embedded_model(places: Places, server: Hub) -> None:
    server.faults.unavailable = 10**6
    choose(places, server)
    served: list[str] = []

    def look() -> None:
        served.extend(first(places).served_names if places.located.exists() else ["nothing"])

    model.fetch(
        places, MANIFEST, Waits(places, {2: look, 3: look, 4: lambda: setattr(server.faults, "unavailable", 0)})
    )
    assert served == ["nothing", GUIDE, "acme/tiny"]


def test_a_hub_may_say_how_long_to_wait(places: Places, server: Hub) -> None:
    server.faults.unavailable, server.faults.status, server.faults.retry_after_s = 10**6, 429, 333

    def recover() -> None:
        server.faults.unavailable = 0

    choose(places, server)
    waits = Waits(places, {1: recover})
    model.fetch(places, MANIFEST, waits)
    assert waits.seconds == [333]


def test_a_model_that_cannot_run_is_refused_before_any_weight(
    places: Places, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        deployment, config, weights, *_ = arguments
        assert (deployment.model, config, weights) == ("acme/tiny", CONFIG, {"model.safetensors": len(WEIGHTS)})
        raise UnobtainableError("acme/tiny needs 99 GB.", "Take a smaller one.")

    monkeypatch.setattr(sizing, "size", refuse)
    choose(places, server)
    model.fetch(places, MANIFEST)
    assert status(places)["message"] == f"acme/tiny needs 99 GB. Serving {GUIDE} instead."
    assert status(places)["fix"] == "Take a smaller one."
    assert server.sent < 1000


def test_the_sizing_is_told_and_obeyed(places: Places, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Serving(model="acme/tiny", args=("--max-model-len", "9000"))
    less = replace(whole, args=("--max-model-len", "1000"), fix="Take a larger GPU.")
    sized = sizing.Sized(whole, "It fits.", (("Weights", "1 MB"),), less)
    monkeypatch.setattr(sizing, "size", lambda *_: sized)
    choose(places, server)
    model.fetch(places, MANIFEST)
    expected = {"sentence": "It fits.", "rows": [["Weights", "1 MB"]]}
    assert status(places)["sizing"] == expected
    assert status(places)["message"] == "acme/tiny is on this instance. It fits."
    largest, smaller, guide = told(places).candidates
    assert largest.args == ("--max-model-len", "9000")
    assert (smaller.folder, smaller.args) == (largest.folder, ("--max-model-len", "1000"))
    assert smaller.fix == "Take a larger GPU."
    assert guide.model == GUIDE
    places.status("model").unlink()
    model.fetch(places, MANIFEST)  # from disk
    assert status(places)["sizing"] == expected


def other(server: Hub, name: str = "acme/other") -> None:
    shutil.copytree(server.folder / "acme" / "tiny", server.folder / name)


def test_the_model_before_is_the_first_fallback(places: Places, server: Hub) -> None:
    other(server)
    choose(places, server, served_name="mine")
    model.fetch(places, MANIFEST)
    before = first(places)
    choose(places, server, model="acme/other")
    model.fetch(places, MANIFEST)
    other_model, *instead = told(places).candidates
    assert instead[0] == before
    assert (instead[1].model, other_model.model) == (GUIDE, "acme/other")
    asked = places.located.read_bytes()
    model.fetch(places, MANIFEST)
    assert places.located.read_bytes() == asked, "repeating is a no-op"


def with_gpus(monkeypatch: pytest.MonkeyPatch, *taken_gib: float, devices: tuple[str, ...] = ()) -> None:
    """A machine with GPUs of 8 GiB, for which only the guide is listed; other programs have so much of each."""
    gpus = tuple(Gpu(name="GPU", memory_gib=8 - taken, taken_gib=taken, capability=(8, 9)) for taken in taken_gib)
    found = Hardware(flavour="cuda", gpus=gpus, devices=devices, driver="580.95.05")
    monkeypatch.setattr("aisandbox.instance.fit.hardware.find", lambda _places: found)


def planned(places: Places, **choice: object) -> Deployment:
    """What the engine is told for that choice."""
    appliance.options(places, "".join(f"{key}: {json.dumps(value)}\n" for key, value in choice.items()))
    configure.apply(places, MANIFEST)
    model.fetch(places, MANIFEST)
    return told(places)


def test_the_engine_is_told_which_gpus_to_use(places: Places, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 0, devices=("GPU-1",))
    assert planned(places).hardware.devices == ("GPU-1",)
    places.located.unlink()
    instead = planned(places, model="acme/nowhere", hub_endpoint=server.endpoint)
    assert (instead.candidates[0].model, instead.hardware.devices) == (GUIDE, ("GPU-1",))
    assert instead.candidates[-1].processor, "should the GPUs fail"
    with_gpus(monkeypatch, 0)
    again = planned(places, model="acme/nowhere", hub_endpoint=server.endpoint)
    assert not again.hardware.devices, "and as it serves"
    assert again.candidates == instead.candidates


def test_vllm_leaves_other_programs_what_they_have(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    argument = "--gpu-memory-utilization"
    with_gpus(monkeypatch, 4)
    guide, *instead = planned(places).candidates
    assert guide.args[-2:] == (argument, "0.46"), "half of what vLLM takes by default"
    assert [(entry.args, entry.processor) for entry in instead] == [((), True)]
    assert planned(places, vllm_args=f"{argument} 0.7").candidates[0].args[-2:] == (argument, "0.7")
    with_gpus(monkeypatch, 0)
    assert argument not in planned(places, model=GUIDE).candidates[0].args


def test_a_model_that_the_engine_refused_is_no_fallback(places: Places, server: Hub) -> None:
    other(server)
    choose(places, server)
    model.fetch(places, MANIFEST)
    files.write_json(places.status("engine"), {"state": "failed", "phase": "load"})
    choose(places, server, model="acme/other")
    model.fetch(places, MANIFEST)
    assert [entry.model for entry in told(places).candidates[1:]] == [GUIDE]
    choose(places, server, model="acme/nothing")
    model.fetch(places, MANIFEST)
    assert f"Serving {GUIDE} instead" in status(places)["message"]
    assert first(places).served_names[0] == GUIDE


def test_a_revision_stays_at_its_commit_until_it_is_pulled(places: Places, server: Hub) -> None:
    choose(places, server)
    model.fetch(places, MANIFEST)
    before = told(places)
    (server.folder / "acme" / "tiny" / "tokenizer.json").write_text("[1]")
    model.fetch(places, MANIFEST)
    assert told(places) == before


@pytest.mark.parametrize(
    ("choice", "message", "fix"),
    [
        ({"model": "acme/tinny"}, "There is no model acme/tinny", "Did you mean acme/tiny? Then: sudo aisandbox"),
        ({"model": "acme/a..b"}, "There is no model acme/a..b", "Check organisation and name"),
        ({"revision": "v9"}, "has no revision v9", "--unset revision"),
    ],
)
def test_a_typo_falls_back_to_the_embedded_model(
    places: Places, server: Hub, choice: dict[str, object], message: str, fix: str
) -> None:
    choose(places, server, **choice)
    model.fetch(places, MANIFEST)
    report = status(places)
    assert (report["state"], report["serving"]) == ("failed", GUIDE)
    assert message in report["message"]
    assert f"Serving {GUIDE} instead" in report["message"]
    assert fix in report["fix"]
    assert first(places).served_names[0] == GUIDE
    assert "models--aisandbox--guide" in first(places).folder
    assert "--max-model-len" not in first(places).args


def test_the_chosen_name_answers_as_well_after_a_failure(places: Places, server: Hub) -> None:
    choose(places, server, model="acme/tinny", served_name="mine")
    model.fetch(places, MANIFEST)
    assert first(places).served_names == (GUIDE, "mine")


def test_what_is_served_stays_when_the_next_model_fails(places: Places, server: Hub) -> None:
    choose(places, server)
    model.fetch(places, MANIFEST)
    before = places.located.read_bytes()
    choose(places, server, model="acme/tinny", served_name="mine")
    model.fetch(places, MANIFEST)
    assert places.located.read_bytes() == before
    assert "Serving acme/tiny instead" in status(places)["message"]


def test_gated_models(places: Places, server: Hub, token: Path) -> None:
    server.faults.gated, server.faults.token = {"acme/tiny"}, TOKEN
    choose(places, server)
    model.fetch(places, MANIFEST)
    assert "needs the access token of an account that accepted its terms" in status(places)["message"]
    assert f"{server.endpoint}/acme/tiny" in status(places)["fix"]
    token.write_text("hf_wrongwrong")
    model.fetch(places, MANIFEST)
    assert "refused the access token" in status(places)["message"]
    token.write_text(TOKEN)
    model.fetch(places, MANIFEST)
    assert "may not use it" in status(places)["message"]
    assert TOKEN not in json.dumps(status(places))
    server.faults.accepted = {"acme/tiny"}
    model.fetch(places, MANIFEST)
    assert status(places)["state"] == "done"


def test_a_model_without_loadable_weights_is_refused(places: Places, server: Hub) -> None:
    folder = server.folder / "acme" / "gguf"
    folder.mkdir()
    (folder / "model.gguf").write_text("x")
    choose(places, server, model="acme/gguf")
    model.fetch(places, MANIFEST)
    assert "has no safetensors weights, which are needed here (it has .gguf)" in status(places)["message"]
    assert server.sent == 0


def test_without_a_gpu_on_a_cuda_image_the_processor_serves_the_guide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aisandbox.instance.fit.hardware._nvidia", lambda _places: {"fault": "Driver Not Loaded"})
    places = appliance.make(tmp_path / "cuda", "cuda")
    appliance.options(places, "model: acme/tiny\nmax_model_len: wrong\n")
    configure.apply(places, MANIFEST)
    model.fetch(places, MANIFEST)
    assert status(places)["state"] == "failed"
    assert status(places)["message"] == (
        f"Serving {GUIDE} on the processor: no NVIDIA GPU can be used, and this image needs one (Driver Not Loaded)."
    )
    assert status(places)["fix"]
    (guide,) = told(places).attempts
    assert (guide.processor, guide.args, guide.served_names) == (True, (), (GUIDE, "acme/tiny"))
    shutil.rmtree(places.baked_models)
    shutil.rmtree(places.hub_cache)
    places.located.unlink()
    model.fetch(places, MANIFEST)
    assert status(places)["message"].startswith("No model can be served: no NVIDIA GPU")
    assert not places.located.exists()


def unit(active: str) -> tuple[services.Unit, ...]:
    return (services.Unit(name=services.VLLM, active=active, sub="", result="", restarts=0),)


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
    deployment = located(serving("/m"))
    deployment.save(places.located)
    if taken is not None:
        config = deployment.digest if taken == "same" else taken
        files.write_json(places.status("engine"), {"config": config})
    assert engine_sync.needed(places, unit(active)) is needed


def test_without_a_model_there_is_nothing_to_restart_for(places: Places) -> None:
    assert not engine_sync.needed(places, unit("failed"))
