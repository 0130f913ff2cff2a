"""The engine when a model cannot be served: retries with less, fallbacks, rest; as a real process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aisandbox.instance.deployment import LOCATED
from tests.support import engines
from tests.support.deployments import serving
from tests.support.engines import Engine

UNKNOWN = (
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
    "  Value error, Model architectures ['StrangeForCausalLM'] are not supported for now. Supported architectures: "
    "dict_keys(['LlamaForCausalLM']) [type=value_error, input_value=ArgsKwargs()]"
)
PORT_TAKEN = "OSError: [Errno 98] Address already in use"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with engines.engine(tmp_path) as engine:
        yield engine


def test_the_first_fallback_that_works_is_served(engine: Engine) -> None:
    bad, worse, good = (
        engine.model("strange", fails=UNKNOWN),
        engine.model("worse", fails="Mystery"),
        engine.model("ok"),
    )
    engine.ask(serving(bad, names=("mine",)), serving(worse), serving(good, names=("ok",)))
    process = engine.start(AISANDBOX_ENGINE="plain")
    status = engine.wait("serve", "failed")
    assert engine.served() == good
    assert status["serving"] == "example/ok"
    assert status["message"].startswith(
        "example/strange cannot be served: this vLLM does not know its architecture, StrangeForCausalLM. "
        "Serving example/ok, started the plain way"
    )
    assert "aisandbox configure --model" in status["fix"]
    output = engine.stop(process)
    assert "'--served-model-name', 'ok', 'mine'" in output

    # It does not flap: after a crash, the model that failed is not tried again.
    again = engine.start(AISANDBOX_ENGINE="plain")
    engine.wait("serve", "failed")
    assert engine.served() == good
    assert output.count("'--model', ") == 3
    assert engine.stop(again).count("'--model', ") == 1


def test_another_choice_is_tried_at_once(engine: Engine) -> None:
    good, other = engine.model("ok"), engine.model("other")
    engine.ask(serving(engine.model("bad", fails="Mystery")), serving(good))
    process = engine.start(AISANDBOX_ENGINE="plain")
    engine.wait("serve", "failed")
    engine.stop(process)
    engine.ask(serving(other))
    engine.start(AISANDBOX_ENGINE="plain")
    assert "serving" not in engine.wait("serve", "done")
    assert engine.served() == other


@pytest.mark.parametrize(("restarts", "tries_again"), [("0", True), ("3", False)])
def test_only_a_start_by_a_person_forgets(engine: Engine, restarts: str, tries_again: bool) -> None:
    """systemd counts its own restarts; a person's start begins with none."""
    bad = engine.model("bad", fails="Mystery")
    engine.ask(serving(bad), serving(engine.model("ok")))
    process = engine.start(AISANDBOX_ENGINE="plain")
    engine.wait("serve", "failed")
    engine.stop(process)
    (Path(bad) / "fails").unlink()
    systemctl = engine.folder / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f"#!/bin/sh\necho {restarts}\n")
    systemctl.chmod(0o755)
    engine.start(AISANDBOX_ENGINE="plain", PATH=f"{systemctl.parent}:{os.environ['PATH']}")
    engine.wait("serve", "done" if tries_again else "failed")
    assert (engine.served() == bad) is tries_again


def test_too_little_memory_is_tried_once_with_less(engine: Engine) -> None:
    model = engine.model("long", fits=1792)
    engine.ask(serving(model, "--max-model-len", "8192"), serving(engine.model("ok")))
    process = engine.start(AISANDBOX_ENGINE="plain")
    status = engine.wait("serve", "failed")
    assert engine.served() == model
    assert status["serving"] == "example/long"
    assert status["message"].split(", started")[0] == "Serving example/long"
    assert status["message"].endswith(
        " with 1792 tokens of context instead: a context of 8192 tokens (max_model_len) needs 4.0 GiB of memory, and "
        "1.0 GiB are left beside the weights."
    )
    assert "aisandbox configure --set max_model_len=1792" in status["fix"]
    output = engine.stop(process)
    assert "'--max-model-len', '8192', '--max-model-len', '1792'" in output
    again = engine.start(AISANDBOX_ENGINE="plain")
    engine.wait("serve", "failed")
    assert engine.stop(again).count("'--model', ") == 1, "what fits is remembered"


def test_too_little_memory_for_less_is_explained_with_figures(engine: Engine) -> None:
    fails = engines.KV_CACHE.format(asked=8192, fits=1792)
    bad, good = engine.model("bad", fails=fails), engine.model("ok")
    engine.ask(serving(bad, "--max-model-len", "8192"), serving(good))
    process = engine.start(AISANDBOX_ENGINE="plain")
    message = engine.wait("serve", "failed")["message"]
    assert engine.served() == good
    assert "8192 tokens (max_model_len) needs 4.0 GiB of memory, and 1.0 GiB are left" in message
    assert engine.stop(process).count("'--model', ") == 3, "asked, once with less, the fallback"


def test_the_same_model_with_less_is_served_instead(engine: Engine) -> None:
    model = engine.model("large", **{"fails-for": "8192"})
    asked = serving(model, "--max-model-len", "8192", names=("m",))
    less = replace(asked, args=("--max-model-len", "4096"), fix="Choose: --set max_model_len=4096")
    engine.ask(asked, less)
    engine.start(AISANDBOX_ENGINE="plain")
    status = engine.wait("serve", "failed")
    assert engine.served() == model
    assert "with 4096 tokens of context instead: it was killed" in status["message"]
    assert status["serving"] == "example/large"
    assert status["fix"] == less.fix


def test_when_nothing_can_be_served_it_goes_on_trying_without_a_crash(engine: Engine) -> None:
    bad = engine.model("bad", fails="ValueError: it is bad")
    engine.ask(serving(bad), serving("/nowhere"))
    process = engine.start()
    status = engine.wait("load", "failed", "tried again")
    assert status["message"] == "example/bad cannot be served: ValueError: it is bad. It is tried again in 0 s."
    assert status["serving"] is None
    engine.wait("load", "failed", "tried again in 1 s")  # ever more rarely
    assert process.poll() is None
    (Path(bad) / "fails").unlink()
    engine.wait("serve", "done")
    assert engine.served() == bad


def test_another_choice_ends_the_rest(engine: Engine) -> None:
    engine.ask(serving(engine.model("bad", fails="Mystery")))
    engine.start(AISANDBOX_ENGINE="plain", AISANDBOX_ENGINE_RETRY="60")
    engine.wait("load", "failed", "tried again")
    good = engine.model("ok")
    engine.ask(serving(good))
    engine.wait("serve", "done")
    assert engine.served() == good


def test_no_other_model_is_tried_when_the_machine_is_to_blame(engine: Engine) -> None:
    engine.ask(serving(engine.model("any", fails=PORT_TAKEN)), serving(engine.model("ok")))
    process = engine.start(AISANDBOX_ENGINE="plain", AISANDBOX_ENGINE_RETRY="60")
    status = engine.wait("load", "failed", "tried again")
    assert "port is in use" in status["message"]
    assert "ss -ltnp" in status["fix"]
    assert engine.stop(process).count("'--model', ") == 1


@pytest.mark.parametrize("files", [None, {}])
def test_a_folder_that_is_gone_or_empty_costs_no_start(engine: Engine, files: dict[str, str] | None) -> None:
    gone = engine.folder / "models--example--gone"
    if files is not None:
        gone.mkdir()
    good = engine.model("ok")
    engine.ask(serving(str(gone)), serving(good))
    process = engine.start(AISANDBOX_ENGINE="plain")
    status = engine.wait("serve", "failed")
    assert status["message"].startswith("example/gone cannot be served: ")
    assert str(gone) in status["message"]
    assert engine.served() == good
    assert engine.stop(process).count("'--model', ") == 1


def test_half_a_configuration_is_reported_until_it_is_whole(engine: Engine) -> None:
    config = engine.folder / "run" / LOCATED
    config.write_text('{"form": 1, "serving')
    engine.start(AISANDBOX_ENGINE="plain")
    status = engine.wait("wait", "failed")
    assert "located.json cannot be used: not JSON" in status["message"]
    assert status["fix"] == "Have it written again: sudo systemctl restart aisandbox-model"
    engine.ask(serving(engine.model("ok")))
    engine.wait("serve", "done")


def test_a_memory_that_makes_no_sense_is_forgotten(engine: Engine) -> None:
    memory = engine.folder / "run" / "status" / "engine-memory.json"
    memory.parent.mkdir()
    engine.ask(serving(engine.model("ok")))
    for content in ("{", json.dumps({"candidates": {"x": {"new": 1}}, "rounds": 0}), "[]"):
        memory.write_text(content)
        process = engine.start(AISANDBOX_ENGINE="plain")
        engine.wait("serve", "done")
        engine.stop(process)


def test_a_memory_that_cannot_be_written_is_handed_on(engine: Engine) -> None:
    (engine.folder / "run" / "status").touch()  # no folder: nothing can be written there
    good = engine.model("ok")
    engine.ask(serving(engine.model("bad", fails="Mystery")), serving(good))
    process = engine.start(AISANDBOX_ENGINE="plain")
    assert process.stdout
    for line in process.stdout:
        if "serve failed" in line:
            break
    assert engine.served() == good
