"""The number formats that a model is computed in and kept in."""

from __future__ import annotations

from dataclasses import dataclass

from aisandbox.instance.fit.hardware import GIB, Hardware
from aisandbox.instance.fit.sizing.facts import BYTES, Facts
from aisandbox.instance.fit.sizing.given import Given

BFLOAT16_CAPABILITY = (8, 0)
FLOAT32_PART = 4
"""A processor without bfloat16 computes in float32 if the weights then take at most this part (1 of 4) of the memory.

Prompts are read 1.7 to 2.7 times as fast; each token takes up to half more time, since twice the bytes are read, and
the same memory caches half the tokens.
"""


@dataclass(frozen=True)
class Numerics:
    """What the model is computed in."""

    dtype: str | None
    """Argument for vLLM; None leaves it to vLLM."""
    value_bytes: int
    """Bytes of one number of the computation."""
    cache_bytes: int
    """Bytes of one number of the cache."""


def numerics(facts: Facts, hardware: Hardware, given: Given) -> Numerics:
    """What the model is computed in on this machine. Old GPUs and many processors have no bfloat16."""
    dtype = given.text("--dtype")
    chosen: str | None = None
    if dtype in (None, "auto"):
        dtype = facts.dtype if facts.dtype in ("float16", "bfloat16") else "bfloat16"
        if dtype == "bfloat16" and hardware.capability and hardware.capability < BFLOAT16_CAPABILITY:
            dtype = chosen = "half" if facts.float16 else "float32"
        if hardware.flavour == "cpu" and not hardware.bfloat16 and _is_small(facts, hardware):
            dtype = chosen = "float32"
    value_bytes = BYTES.get(dtype or "", 2)
    cache = given.text("--kv-cache-dtype") or "auto"
    return Numerics(chosen, value_bytes, 1 if cache.startswith("fp8") else BYTES.get(cache, value_bytes))


def _is_small(facts: Facts, hardware: Hardware) -> bool:
    """Whether there is memory to spare for the weights in float32; compressed ones stay as they are."""
    if not facts.bytes_per_weight:
        return False
    return FLOAT32_PART * facts.weight_bytes * BYTES["float32"] <= hardware.ram_gib * GIB * facts.bytes_per_weight
