"""The number formats that a model is computed in and kept in."""

from __future__ import annotations

from dataclasses import dataclass

from aisandbox.instance.fit.hardware import Hardware
from aisandbox.instance.fit.sizing.facts import BYTES, Facts
from aisandbox.instance.fit.sizing.given import Given

BFLOAT16_CAPABILITY = (8, 0)


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
    """What the model is computed in on this machine. Old GPUs have no bfloat16."""
    dtype = given.text("--dtype")
    chosen: str | None = None
    if dtype in (None, "auto"):
        dtype = facts.dtype if facts.dtype in ("float16", "bfloat16") else "bfloat16"
        if dtype == "bfloat16" and hardware.capability and hardware.capability < BFLOAT16_CAPABILITY:
            dtype = chosen = "half" if facts.float16 else "float32"
    value_bytes = BYTES.get(dtype or "", 2)
    cache = given.text("--kv-cache-dtype") or "auto"
    return Numerics(chosen, value_bytes, 1 if cache.startswith("fp8") else BYTES.get(cache, value_bytes))
