"""Memory that vLLM needs beside weights and cache. It measures the peak of a trial run before it makes the cache.

The parts of the trial follow each other, so the largest counts. Checked against published starts on real GPUs:
tests/unit/test_sizing_field.py.
"""

from __future__ import annotations

from aisandbox.instance.fit.hardware import GIB
from aisandbox.instance.fit.sizing.batch import Batch
from aisandbox.instance.fit.sizing.facts import Facts
from aisandbox.instance.fit.sizing.given import Given
from aisandbox.instance.fit.sizing.numerics import Numerics

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
"""Model types (as they begin) whose trial takes a video as long as the context."""
MOST_VIDEO_TOKENS = 114_688
VIDEO_TOKEN_BYTES = 145_000
"""The longest took 15.5 GiB."""
LIMIT = "--limit-mm-per-prompt"
NO_VIDEO = (LIMIT, '{"video": 0}')


def sees(facts: Facts, given: Given) -> bool:
    """Whether the model's part for pictures is loaded."""
    return facts.vision and not given.has("--language-model-only")


def without_video(facts: Facts, given: Given) -> bool:
    """Whether videos are to be refused, so that the trial does not take the memory of the longest."""
    return sees(facts, given) and _sees_any_video(facts) and not given.has(LIMIT)


def _sees_any_video(facts: Facts) -> bool:
    return (facts.model_type or "").startswith(UNLIMITED_VIDEO)


def of(facts: Facts, numbers: Numerics, batch: Batch, gpus: int, stages: int, given: Given) -> int:
    """Bytes on each GPU."""
    sampler = SAMPLER_BYTES * batch.conversations * facts.shape.vocabulary
    step = batch.tokens * facts.shape.step_values(gpus) * numbers.value_bytes
    peak = max(sampler, step, _vision(facts, given) if sees(facts, given) else 0)
    return BASE + (SPREAD if gpus * stages > 1 else 0) + peak


def _vision(facts: Facts, given: Given) -> int:
    kind = facts.model_type or ""
    picture = next((VISION_BY_TYPE[name] for name in VISION_BY_TYPE if kind.startswith(name)), VISION)
    if not _sees_any_video(facts) or not given.has(LIMIT) or given.count(LIMIT, "video") == 0:
        return picture
    longest = int(given.number("--max-model-len") or facts.max_context or MOST_VIDEO_TOKENS)
    return max(picture, VIDEO_TOKEN_BYTES * min(longest, MOST_VIDEO_TOKENS))
