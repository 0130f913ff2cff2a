"""How much memory a model's weights take once vLLM has loaded them."""

from __future__ import annotations

from aisandbox.instance.fit.sizing.facts import Facts
from aisandbox.instance.fit.sizing.numerics import Numerics

MXFP4_BYTES = 17 / 32
"""Of each number: 4 bits, and 8 for every 32 of them."""
MXFP4_WIDTHS = (256, 128)
"""Multiples that a model's and its experts' widths are filled up to by the kernels for MXFP4."""
HOPPER = 9
MXFP4_ON_HOPPER = 0.035
"""Part that is added there: 1 to 8 % in published starts, by vLLM's version."""
MOST_PREDICTING = 8
"""Layers that guess ahead are never more than this part (1 of 8) of the files."""


def in_memory(facts: Facts, numbers: Numerics, online: bool) -> int:
    """Bytes of the weights once they are converted, and (`online`) compressed."""
    if not facts.bytes_per_weight:
        return facts.weight_bytes
    loaded = facts.weight_bytes * numbers.value_bytes // facts.bytes_per_weight
    kept = min(facts.embedding_values * numbers.value_bytes, loaded)
    return kept + (loaded - kept) // numbers.value_bytes if online else loaded


def on_each(
    facts: Facts, numbers: Numerics, online: bool, gpus: int, stages: int, capability: tuple[int, int] | None
) -> int:
    """Bytes on each GPU: its part of what is loaded, and what every GPU has."""
    if not facts.weight_bytes:
        return 0
    shape, parts = facts.shape, gpus * stages
    published = facts.bytes_per_weight or (facts.quantization.value_bytes if facts.quantization else None) or 0
    each = (1 if online else numbers.value_bytes) if facts.bytes_per_weight else published
    replicated = int(shape.layers * shape.latent * each) * (gpus - 1)
    loaded = in_memory(facts, numbers, online) - _left_out(facts, numbers, each) + replicated
    positions = facts.position_values * numbers.value_bytes
    return loaded // parts + positions + _padding(facts, gpus, capability) // stages


def _left_out(facts: Facts, numbers: Numerics, each: float) -> int:
    """Bytes of the files that vLLM does not load."""
    table = facts.shape.vocabulary * facts.shape.hidden * numbers.value_bytes
    left_out = table if _has_table_twice(facts, table) else 0
    if _publishes_predicting(facts):
        left_out += min(int(facts.shape.predicting_values * each), facts.weight_bytes // MOST_PREDICTING)
    return left_out


def _publishes_predicting(facts: Facts) -> bool:
    """Whether the layers that guess ahead are surely among the files: programs that compress may leave them out."""
    return not facts.quantization or facts.quantization.method == "fp8"


def _has_table_twice(facts: Facts, table: int) -> bool:
    """Whether the files hold the one table between tokens and vectors twice, as some compressed ones do."""
    each = facts.quantization.value_bytes if facts.quantization else None
    if not facts.tied or not each or each >= 1:
        return False
    shape = facts.shape
    expected = shape.layers * shape.layer_values * each + table + 2 * shape.beside_layers
    return facts.weight_bytes > expected + table / 2


def _padding(facts: Facts, gpus: int, capability: tuple[int, int] | None) -> int:
    """Bytes on each GPU that fill up weights in MXFP4 to the widths of its kernels."""
    shape = facts.shape
    if not facts.quantization or "mxfp4" not in facts.quantization.method or not shape.experts:
        return 0
    if capability and capability[0] == HOPPER:
        return int(facts.weight_bytes * MXFP4_ON_HOPPER) // gpus
    width = -(-shape.expert_width // gpus)
    hidden, filled = (-(-size // unit) * unit for size, unit in zip((shape.hidden, width), MXFP4_WIDTHS, strict=True))
    more = hidden * filled - shape.hidden * width
    return int(shape.layers * shape.experts * 3 * more * MXFP4_BYTES)
