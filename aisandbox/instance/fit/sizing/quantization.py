"""How weights are compressed, and which GPUs vLLM can use them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aisandbox.instance.fit.sizing.config import section, whole, word

ALIASES = {"compressed_tensors": "compressed-tensors", "auto-round": "inc"}
"""Names in configurations that vLLM takes for others. By hand: each of its formats looks for its own names, in code."""

NATIVE_CAPABILITY = {"fp8": (8, 9), "modelopt": (8, 9), "modelopt_fp4": (10, 0), "mxfp4": (10, 0)}
"""From here on the GPU computes in the format itself; before, weights are unpacked on the fly (Marlin), which saves
memory but no time. By hand: vLLM asks the GPU for it while it chooses a kernel."""

SCALE_BITS = 16

ONLINE = {"fp8": "fp8_per_tensor"}
"""Our option's values, and what vLLM calls them when it compresses weights that are published without quantization."""


@dataclass(frozen=True)
class Quantization:
    """How published weights are compressed."""

    method: str
    """vLLM's name for it; empty when the format belongs to another program."""
    block: int | None = None
    """Weights that share a scale: a GPU's part of a layer must be a multiple of them."""
    value_bytes: float | None = None
    """Bytes of a compressed number with its part of the scale; None when it is not told."""


def find(config: Mapping[str, Any], text: Mapping[str, Any], extra: Mapping[str, Any] | None) -> Quantization | None:
    """The compression that config.json (or ModelOpt's file beside it) tells of; None for plain weights."""
    for place in (config, text):
        told = section(place, "quantization_config", "compression_config")
        if told:
            return Quantization(_method(told), _block(told), _value_bytes(told))
    modelopt = section(extra or {}, "quantization")
    if modelopt:
        return Quantization(_modelopt(modelopt), None)
    if section(config, "quantization"):  # MLX writes its own key, which vLLM does not read
        return Quantization("")
    return None


def _method(told: Mapping[str, Any]) -> str:
    if word(section(told, "producer"), "name") == "modelopt":
        return _modelopt(section(told, "quantization"))
    method = (word(told, "quant_method") or "").lower()
    return ALIASES.get(method, method)


def _modelopt(told: Mapping[str, Any]) -> str:
    return "modelopt_fp4" if "NVFP4" in (word(told, "quant_algo") or "").upper() else "modelopt"


def _block(told: Mapping[str, Any]) -> int | None:
    shape = told.get("weight_block_size")
    if isinstance(shape, list) and shape and isinstance(shape[0], int) and shape[0] > 1:
        return shape[0]
    size = told.get("group_size")
    # -1 is one scale for a whole row.
    return whole(told, "group_size") if isinstance(size, int) and size > 1 else None


def _value_bytes(told: Mapping[str, Any]) -> float | None:
    if _method(told) == "fp8":
        return 1
    groups = list(section(told, "config_groups").values())
    weights = section(groups[0], "weights") if groups and isinstance(groups[0], dict) else told
    bits, group = whole(weights, "num_bits", "bits", "w_bit"), weights.get("group_size")
    scale = SCALE_BITS / group if isinstance(group, int) and group > 0 else 0
    return (bits + scale) / 8 if bits else None
