"""Memory that vLLM needs beside weights and cache. It measures the peak of a trial run before it makes the cache.

The parts of the trial follow each other, so the largest counts. Checked against published starts on real GPUs:
tests/unit/test_sizing_field.py.
"""

from __future__ import annotations

from aisandbox.instance.hardware import GIB
from aisandbox.instance.sizing.batch import Batch
from aisandbox.instance.sizing.facts import Facts
from aisandbox.instance.sizing.given import Given
from aisandbox.instance.sizing.numerics import Numerics

BASE = 3 * GIB // 8
"""What PyTorch and CUDA graphs take."""
SPREAD = GIB // 2
"""More of it on each of several GPUs, to exchange results."""
SAMPLER_BYTES = 36
"""For each conversation and word of the vocabulary: the scores in two formats, sorted, and their sums."""
VISION = 11 * GIB // 8
"""The trial's largest picture, of 16,384 tokens."""
VISION_BY_TYPE = {
    "gemma": GIB // 4,  # pictures have one small size
    "qwen2_vl": 2 * GIB,
    "qwen2_5_vl": 2 * GIB,
    "qwen3_vl": 5 * GIB,  # layers of the language model see the picture, too
}
"""Model types (as they begin) whose largest picture takes otherwise."""
UNLIMITED_VIDEO = ("qwen2_vl", "qwen2_5_vl")
"""Model types (as they begin) whose trial takes a video as long as the context: 114,688 tokens are 15.5 GiB."""
NO_VIDEO = ("--limit-mm-per-prompt", '{"video": 0}')


def sees(facts: Facts, given: Given) -> bool:
    """Whether the model's part for pictures is loaded."""
    return facts.vision and not given.has("--language-model-only")


def without_video(facts: Facts, given: Given) -> bool:
    """Whether videos are to be refused, so that the trial does not take the memory of the longest."""
    kind = facts.model_type or ""
    return sees(facts, given) and kind.startswith(UNLIMITED_VIDEO) and not given.has(NO_VIDEO[0])


def of(facts: Facts, numbers: Numerics, batch: Batch, gpus: int, stages: int, given: Given) -> int:
    """Bytes on each GPU."""
    sampler = SAMPLER_BYTES * batch.conversations * facts.shape.vocabulary
    step = batch.tokens * facts.shape.step_values(gpus) * numbers.value_bytes
    peak = max(sampler, step, _vision(facts) if sees(facts, given) else 0)
    return BASE + (SPREAD if gpus * stages > 1 else 0) + peak


def _vision(facts: Facts) -> int:
    kind = facts.model_type or ""
    return next((VISION_BY_TYPE[name] for name in VISION_BY_TYPE if kind.startswith(name)), VISION)
