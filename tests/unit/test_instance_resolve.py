"""From choice and machine to what is served."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from aisandbox.instance.choose.options import Choice
from aisandbox.instance.choose.resolve import resolve
from aisandbox.instance.deployment import Asked, Deployment, Gpu, Hardware
from aisandbox.instance.problem import Problem
from tests.support.appliance import GUIDE, MANIFEST

CPU = Hardware(flavour="cpu")
NO_GPU = Hardware(flavour="cuda", fault="Driver Not Loaded")
LARGE, MIDDLE = MANIFEST.models[0], MANIFEST.models[1]


def gpus(*memory_gib: float, capability: tuple[int, int] = (8, 9)) -> Hardware:
    found = (Gpu(name="NVIDIA Test", memory_gib=memory, capability=capability) for memory in memory_gib)
    return Hardware(flavour="cuda", gpus=tuple(found))


def decide(hardware: Hardware, **choice: object) -> Deployment:
    return resolve(Choice.model_validate(choice), (), MANIFEST, hardware)


def test_without_gpu_the_embedded_model_is_served_with_nothing_gpu_like() -> None:
    planned = decide(CPU)
    assert planned.serving == replace(planned.serving, model=GUIDE, embedded=True, served_names=(GUIDE,))
    assert not planned.tasks
    structured, settings, *rest = planned.serving.args
    assert structured == "--structured-outputs-config" and json.loads(settings)["disable_any_whitespace"]
    assert rest == ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    assert not planned.hardware.no_gpu
    assert not planned.problems


def test_the_embedded_model_computes_in_what_the_processor_is_fast_with() -> None:
    planned = decide(replace(CPU, bfloat16=False), vllm_args="--max-num-seqs 8")
    for serving in (planned.serving, planned.guide):
        assert serving.args[5:7] == ("--dtype", "float32")
    assert planned.serving.args[7:] == ("--max-num-seqs", "8"), "the user's arguments come last and decide"


@pytest.mark.parametrize(("memory_gib", "model"), [(15.0, MIDDLE), (44.5, LARGE), (79.6, LARGE)])
def test_without_a_choice_the_best_listed_model_that_fits(memory_gib: float, model: object) -> None:
    planned = decide(gpus(memory_gib))
    assert MANIFEST.model(planned.model) == model
    assert not planned.serving.embedded
    assert planned.tasks


def test_a_choice_is_followed() -> None:
    choice = {"revision": "v2", "served_name": "mine", "max_model_len": 4096, "hub_endpoint": "http://hub:1"}
    planned = decide(gpus(24), model="Qwen/Qwen3-8B", quantization="fp8", vllm_args="--max-num-seqs 8", **choice)
    assert (planned.model, planned.serving.revision, planned.serving.served_names) == ("Qwen/Qwen3-8B", "v2", ("mine",))
    assert planned.hub_endpoint == "http://hub:1"
    assert planned.asked == Asked(max_model_len=4096, quantization="fp8", vllm_args=("--max-num-seqs", "8"))


def test_the_arguments_of_a_model_to_download_are_left_to_its_sizing() -> None:
    planned = decide(gpus(24, 24), model="acme/model")
    assert planned.serving.args == ()
    assert planned.hardware == gpus(24, 24)


def test_the_embedded_model_takes_the_users_arguments() -> None:
    assert decide(CPU, vllm_args="--max-num-seqs 8").serving.args[-2:] == ("--max-num-seqs", "8")


def test_a_listed_name_is_spelt_as_listed_and_pinned() -> None:
    planned = decide(gpus(80), model=LARGE.id.lower())
    assert (planned.model, planned.serving.revision) == (LARGE.id, LARGE.revision)


def test_several_gpus_together_count_for_the_default() -> None:
    assert decide(gpus(22.5)).model == MIDDLE.id
    assert decide(gpus(22.5, 22.5)).model == LARGE.id


def test_an_old_gpu_gets_a_model_that_it_can_compute() -> None:
    assert decide(gpus(80, capability=(7, 5))).model == MIDDLE.id


def test_a_cuda_image_without_gpu_says_so_and_serves_nothing() -> None:
    planned = decide(NO_GPU)
    (problem,) = planned.problems
    assert planned.hardware.no_gpu == problem
    assert "no NVIDIA GPU can be used" in problem.reason
    assert "Driver Not Loaded" in problem.reason
    assert problem.fix


def test_a_fault_of_the_driver_is_told_with_its_fix_and_nothing_is_served() -> None:
    hardware = replace(gpus(24), fault="driver 535 is too old", fix="Update it")
    planned = decide(hardware)
    (problem,) = planned.problems
    assert planned.hardware.no_gpu == problem
    assert "driver 535 is too old" in problem.reason
    assert problem.fix == "Update it"


def test_a_condition_of_the_moment_is_not_written_down() -> None:
    hot, dead = Problem(reason="hot", fix="Wait."), Problem(reason="dead", fix="Reboot.")
    planned = decide(replace(gpus(24), conditions=(hot,), problems=(dead,)))
    assert (planned.hardware.problems, planned.hardware.conditions, planned.problems) == ((dead,), (), ())


def test_a_revision_without_its_model_is_ignored() -> None:
    planned = decide(CPU, revision="v2")
    assert planned.serving.revision == "main"
    assert planned.problems[0].option == "revision"


def test_the_embedded_model_keeps_its_context_length() -> None:
    planned = decide(CPU, max_model_len=32768)
    assert "--max-model-len" not in planned.serving.args
    assert planned.problems[0].option == "max_model_len"


def test_every_deployment_has_the_embedded_model_to_fall_back_on() -> None:
    guide = decide(gpus(80, 80), model="acme/model", served_name="mine").guide
    assert (guide.model, guide.served_names, guide.embedded) == (GUIDE, (GUIDE,), True)


def test_a_deployment_holds_no_secrets(tmp_path: Path) -> None:
    token = "hf_abcdefgh12345678"
    decide(CPU, hf_token=SecretStr(token)).save(tmp_path / "resolved.json")
    assert token not in (tmp_path / "resolved.json").read_text()
