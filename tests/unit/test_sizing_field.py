"""What the sizing expects, beside what people published from vLLM's start on real GPUs.

`gpu-logs.json` holds GPU, settings and outcome of each start, `gpu-logs-models.json` configurations and sizes of the
models. Releases of vLLM from 0.10 to 0.29 wrote them; the sizing follows that of the image.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aisandbox.instance.fit import sizing
from aisandbox.instance.fit.hardware import Gpu, Hardware
from aisandbox.instance.fit.sizing import Sized, UnobtainableError
from aisandbox.instance.fit.sizing.given import Given
from tests.support.appliance import MANIFEST
from tests.unit.test_sizing import GIB, planned, value

DATA = Path(__file__).parent.parent / "data"
LOGS = json.loads((DATA / "gpu-logs.json").read_bytes())
MODELS = json.loads((DATA / "gpu-logs-models.json").read_bytes())
RECORDS = LOGS["records"]


@dataclass(frozen=True)
class Compared:
    """One published start beside what the sizing says for the same input. Errors are parts of the published figure."""

    record: dict[str, Any]
    sized: Sized | None
    """None: it is refused."""

    def error(self, expected: float | None, published: float | None) -> float | None:
        return expected / published - 1 if expected and published and published > 0 else None

    @property
    def weights(self) -> float | None:
        fit = self.sized and self.sized.fit
        return self.error(fit.weights / GIB if fit else None, self.record["weights_gib_per_gpu"])

    @property
    def published_tokens(self) -> float | None:
        """Tokens in the cache, as vLLM said; None when it did not, or not of this start."""
        record, length = self.record, self.record["max_model_len"]
        asked = LOGS["gpus"][record["gpu"]]["cuda_gib"] * record["gpu_memory_utilization"]
        if (record["weights_gib_per_gpu"] or 0) + (record["kv_gib_per_gpu"] or 0) > asked:
            return None  # with the allocator of vLLM's sleep mode, which counts the weights elsewhere
        if record["outcome"] == "fail:memory":
            return None  # the figure is of a second start with other arguments
        counted = None if "oldmetric" in record["flags"] else record["kv_tokens"]
        return counted or (record["max_concurrency"] or 0) * length or None

    @property
    def tokens(self) -> float | None:
        fit, length = self.sized and self.sized.fit, self.record["max_model_len"]
        return self.error(fit.capacity(length) if fit else None, self.published_tokens)

    @property
    def starts(self) -> bool:
        """Whether vLLM starts with our arguments where it failed with those of the record."""
        if self.sized is None:
            return False
        outcome, given = self.record["outcome"], Given(shlex.split(self.record["extra_args"]))
        if outcome == "ok":
            return True
        if outcome == "fail:seqs":
            told = value(self.sized, "--max-num-seqs")
            return told is not None and int(told) <= self.record["blocks"]
        if outcome == "fail:length":
            return value(self.sized, "--max-model-len") == "auto"
        # For memory: with fewer conversations at once, or without a video that takes more than the model.
        fewer = not given.has("--max-num-seqs") and "--max-num-seqs" in self.sized.args
        return fewer or "--limit-mm-per-prompt" in self.sized.args

    @property
    def row(self) -> str:
        record, fit = self.record, self.sized and self.sized.fit
        shares = [f"{part:+7.1%}" if part is not None else "      -" for part in (self.weights, self.tokens)]
        ours = "refused" if not fit else f"{fit.batch.conversations} at once, {fit.context} tokens"
        name = f"{record['n']:4} {record['model'][:36]:36} {record['gpu_count']} x {record['gpu']:13}"
        return f"{name} weights {shares[0]} tokens {shares[1]} {record['outcome']:12} {ours}"


def compare(record: dict[str, Any]) -> Compared:
    gpu, model = LOGS["gpus"][record["gpu"]], MODELS[record["model"]]
    one = Gpu(name=record["gpu"], memory_gib=gpu["cuda_gib"], capability=tuple(gpu["capability"]))
    hardware = Hardware(flavour="cuda", ram_gib=64, cpus=8, gpus=(one,) * record["gpu_count"])
    arguments = [
        "--gpu-memory-utilization",
        str(record["gpu_memory_utilization"]),
        "--tensor-parallel-size",
        str(record["tensor_parallel_size"]),
        *(_json(word) for word in shlex.split(record["extra_args"])),
    ]
    asked = planned("acme/model", hardware, max_model_len=record["max_model_len"], vllm_args=shlex.join(arguments))
    try:
        return Compared(record, sizing.size(asked, model["config"], {"w": model["weight_bytes"]}, MANIFEST))
    except UnobtainableError:
        return Compared(record, None)


def _json(word: str) -> str:
    """`image=1,video=0` as this vLLM takes it."""
    if "=" not in word:
        return word
    return json.dumps({name: int(count) for name, count in (pair.split("=") for pair in word.split(","))})


@pytest.fixture(scope="module")
def field() -> list[Compared]:
    return [compare(record) for record in RECORDS]


def table(field: list[Compared]) -> str:
    return "\n".join(["", *(compared.row for compared in field)])


def test_what_ran_is_not_refused(field: list[Compared]) -> None:
    assert not [one.row for one in field if one.record["outcome"] == "ok" and not one.sized], table(field)


def test_what_failed_is_refused_or_given_arguments_that_cure_it(field: list[Compared]) -> None:
    assert not [one.row for one in field if one.sized and not one.starts], table(field)


def test_the_estimated_weights_are_those_that_vllm_loaded(field: list[Compared]) -> None:
    """gpt-oss took 3 to 5 % more before vLLM 0.25, which filled its experts up to wider kernels."""
    old = [one for one in field if one.record["model"] == "gpt-oss-120b" and one.record["outcome"] != "ok"]
    errors = [one.weights for one in field if one.weights is not None and one not in old]
    assert len(errors) >= 25
    assert max(map(abs, errors)) <= 0.03, table(field)


def test_the_estimated_tokens_are_near_those_of_the_field(field: list[Compared]) -> None:
    errors = [one.tokens for one in field if one.tokens is not None]
    assert len(errors) >= 20
    near = sum(abs(error) <= 0.15 for error in errors)
    assert near >= 0.9 * len(errors), f"{near} of {len(errors)}{table(field)}"
