"""Which model an instance serves when nobody chose one, on the GPUs that providers rent out, and that it fits there."""

from __future__ import annotations

from pathlib import Path

import pytest

from aisandbox.instance.choose.options import Choice
from aisandbox.instance.choose.resolve import resolve
from aisandbox.instance.fit import sizing
from aisandbox.instance.fit.hardware import Gpu, Hardware
from aisandbox.instance.fit.sizing import Sized
from tests.support.appliance import MANIFEST
from tests.unit.test_sizing import facts, value

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
GPUS = (
    (16, "T4", 14.56, (7, 5)),
    (20, "RTX 4000 Ada", 19.5, (8, 9)),
    (24, "L4", 22.04, (8, 9)),
    (48, "L40S", 44.39, (8, 9)),
    (80, "H100", 79.19, (9, 0)),
    (96, "RTX PRO 6000", 94.97, (12, 0)),
    (141, "H200", 139.81, (9, 0)),
    (192, "B200", 178.4, (10, 0)),
)
"""Memory as it is sold in GB, name, memory in GiB as CUDA sees it, and compute capability."""
LEAST_CONTEXT = 32768
LEAST_CONVERSATIONS = 32


def served(gpu: tuple[int, str, float, tuple[int, int]], count: int) -> tuple[str, Sized]:
    """The default model of so many GPUs, and how it is served."""
    one = Gpu(name=gpu[1], memory_gib=gpu[2], capability=gpu[3])
    chosen = resolve(Choice(), (), MANIFEST, Hardware(flavour="cuda", ram_gib=64, cpus=8, gpus=(one,) * count))
    told = facts(chosen.model.split("/")[1])
    assert told["model"] == chosen.model
    return chosen.model, sizing.size(chosen, told["config"], {"w": told["weight_bytes"]}, MANIFEST)


def row(gpu: tuple[int, str, float, tuple[int, int]], count: int) -> str:
    model, sized = served(gpu, count)
    fit = sized.fit
    assert fit and fit.context
    context = f"{fit.context - fit.context % 1000:,}" if fit.context < 262_144 else "262,144 (all)"
    name = f"{count} x {gpu[0]} GB ({gpu[1]})"
    return f"| {name} | `{model}` | {fit.gpus} | {context} | {fit.batch.conversations} |"


COUNTS = (1, 2, 4, 8)
ROWS = [(gpu, count) for gpu in GPUS for count in COUNTS]


@pytest.mark.parametrize(("gpu", "count"), ROWS, ids=lambda part: str(part))
def test_the_default_model_fits_with_a_useful_context(gpu: tuple[int, str, float, tuple[int, int]], count: int) -> None:
    model, sized = served(gpu, count)
    fit = sized.fit
    assert fit and fit.context and fit.holds(LEAST_CONTEXT), sized.sentence
    # What vLLM would do by itself, 256 and more, may be more than there are states of conversations.
    assert fit.batch.conversations >= LEAST_CONVERSATIONS
    told = value(sized, "--max-num-seqs")
    if model.startswith("Qwen/"):
        assert told and fit.blocks and int(told) == fit.batch.conversations <= fit.blocks


def test_the_document_shows_the_defaults() -> None:
    """One row for each GPU, and one where more of them serve another model."""
    lines = [
        row(gpu, count) for gpu, count in ROWS if count == 1 or served(gpu, count)[0] != served(gpu, count // 2)[0]
    ]
    assert "\n".join(lines) in DOCUMENT.read_text(), "\n".join(["the rows of docs/models.md are to be", *lines])
