"""From choice and machine to what is served."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr

from aisandbox.instance import plan
from aisandbox.instance.hardware import Gpu, Hardware
from aisandbox.instance.options import Choice
from aisandbox.instance.plan import Plan
from tests.support.appliance import GUIDE, MANIFEST

CPU = Hardware(flavour="cpu")
NO_GPU = Hardware(flavour="cuda", fault="Driver Not Loaded")
LARGE, MIDDLE = MANIFEST.models[0], MANIFEST.models[1]


def gpus(*memory_gib: float) -> Hardware:
    return Hardware(flavour="cuda", gpus=tuple(Gpu(name="NVIDIA Test", memory_gib=memory) for memory in memory_gib))


def decide(hardware: Hardware, **choice: object) -> Plan:
    return plan.decide(Choice.model_validate(choice), (), MANIFEST, hardware)


def test_without_gpu_the_embedded_model_is_served_with_nothing_gpu_like() -> None:
    planned = decide(CPU)
    assert (planned.model, planned.embedded, planned.tasks, planned.served_names) == (GUIDE, True, False, (GUIDE,))
    structured, settings, *rest = planned.args
    assert structured == "--structured-outputs-config" and json.loads(settings)["disable_any_whitespace"]
    assert rest == ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    assert planned.servable
    assert not planned.problems


@pytest.mark.parametrize(("memory_gib", "model"), [(15.0, MIDDLE), (44.5, LARGE), (79.6, LARGE)])
def test_without_a_choice_the_best_listed_model_that_fits(memory_gib: float, model: object) -> None:
    planned = decide(gpus(memory_gib))
    assert MANIFEST.model(planned.model) == model
    assert not planned.embedded
    assert planned.tasks
    assert planned.args[:2] == ("--max-model-len", "auto")
    assert "--tensor-parallel-size" not in planned.args


def test_a_choice_is_followed() -> None:
    choice = {"revision": "v2", "served_name": "mine", "max_model_len": 4096, "hub_endpoint": "http://hub:1"}
    planned = decide(gpus(24), model="Qwen/Qwen3-8B", **choice)
    assert (planned.model, planned.revision, planned.served_names) == ("Qwen/Qwen3-8B", "v2", ("mine",))
    assert planned.hub_endpoint == "http://hub:1"
    assert planned.args == (
        *("--max-model-len", "4096", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--reasoning-parser", "qwen3"),
    )


def test_an_unlisted_family_gets_no_parsers() -> None:
    assert decide(CPU, model="acme/model").args == ("--max-model-len", "auto")


def test_a_listed_name_is_spelt_as_listed() -> None:
    assert decide(gpus(80), model=LARGE.id.lower()).model == LARGE.id


@pytest.mark.parametrize(("count", "size"), [(1, None), (2, "2"), (3, "2"), (4, "4"), (7, "4"), (8, "8")])
def test_several_gpus_share_the_model_by_powers_of_two(count: int, size: str | None) -> None:
    args = decide(gpus(*[80.0] * count), model="acme/model").args
    assert ("--tensor-parallel-size" in args) == (size is not None)
    if size:
        assert args[args.index("--tensor-parallel-size") + 1] == size


def test_a_listed_model_that_cannot_fit_is_refused_before_any_download() -> None:
    planned = decide(gpus(15), model=LARGE.id, revision="v2")
    (problem,) = planned.problems
    assert planned.model == MIDDLE.id
    assert planned.revision != "v2"
    assert problem.reason == f"needs {LARGE.gpu_memory_gib} GiB of GPU memory, and this instance has 15 GiB"
    assert f"--model {MIDDLE.id}" in problem.fix


def test_two_gpus_together_can_fit_a_model() -> None:
    assert decide(gpus(24, 24), model=LARGE.id).model == LARGE.id


def test_a_cuda_image_without_gpu_says_so_and_serves_nothing() -> None:
    planned = decide(NO_GPU)
    (problem,) = planned.problems
    assert not planned.servable
    assert "no NVIDIA GPU can be used" in problem.reason
    assert "Driver Not Loaded" in problem.reason
    assert "GPU plan" in problem.fix


def test_a_revision_without_its_model_is_ignored() -> None:
    planned = decide(CPU, revision="v2")
    assert planned.revision == "main"
    assert planned.problems[0].option == "revision"


def test_the_embedded_model_keeps_its_context_length() -> None:
    planned = decide(CPU, max_model_len=32768)
    assert "--max-model-len" not in planned.args
    assert planned.problems[0].option == "max_model_len"


def test_every_plan_has_the_embedded_model_to_fall_back_on() -> None:
    fallback = decide(gpus(80, 80), model="acme/model", served_name="mine").fallback
    assert (fallback.model, fallback.served_names, fallback.embedded) == (GUIDE, (GUIDE,), True)
    assert "--tensor-parallel-size" not in fallback.args


def test_a_plan_holds_no_secrets() -> None:
    token = "hf_abcdefgh12345678"
    assert token not in decide(CPU, hf_token=SecretStr(token)).model_dump_json()
