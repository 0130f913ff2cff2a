"""What vLLM knows of models and GPUs, read out of it while the image is baked; `fit.sizing.tables` reads it back.

Only vLLM's environment can run this. A table that is no longer where it was is left out, and the image check says so:
without it the instance leaves to vLLM what it would know before a download.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROPE = "longrope"
"""One of the extensions of the context that are in the tuple which is looked for."""


def write(file: Path, architectures: Iterable[str]) -> None:
    """Write all tables as JSON, one on each line."""
    tables = {}
    for name, table in TABLES.items():
        try:
            tables[name] = table()
        except Exception as error:
            print(f"engine: not baked: {name}: {type(error).__name__}: {error}", flush=True)
    tables["architectures"] = sorted({*architectures, *_of_transformers()})
    lines = (f"{json.dumps(name)}: {json.dumps(tables[name])}" for name in sorted(tables))
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _of_transformers() -> Iterator[str]:
    """Architectures that vLLM serves through the Transformers library when it has no implementation of its own."""
    for names in _transformers().values():
        yield from (names,) if isinstance(names, str) else names


def _transformers() -> dict[str, Any]:
    """The library's models that write text, by model type."""
    from transformers.models.auto import modeling_auto as auto

    return {**auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, **auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}


def _formats() -> dict[str, tuple[int, int]]:
    """Formats of compressed weights, with the oldest compute capability for each."""
    from vllm.model_executor.layers import quantization

    methods = sorted(quantization.QUANTIZATION_METHODS)
    return {name: divmod(quantization.get_quantization_config(name).get_min_capability(), 10) for name in methods}


def _not_float16() -> list[str]:
    """Model types that vLLM refuses to compute in float16."""
    from vllm.config import model

    return sorted(model._FLOAT16_NOT_SUPPORTED_MODELS)


def _prescaled_ropes() -> list[str]:
    """Extensions of the context that `max_position_embeddings` includes already: a literal in vLLM's code."""
    from vllm.config import model

    constants = model._get_and_verify_max_len.__code__.co_consts
    return sorted(next(names for names in constants if isinstance(names, tuple) and ROPE in names))


def _defaults() -> dict[str, dict[str, int]]:
    """What a model's configuration may leave out, by model type, as the Transformers library fills it in."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found: dict[str, dict[str, int]] = {}
    for name in _transformers():
        try:
            text = CONFIG_MAPPING[name]().get_text_config()
        except Exception as error:
            print(f"engine: no defaults of {name}: {type(error).__name__}: {error}", flush=True)
            continue
        told = {
            "context": getattr(text, "max_position_embeddings", None),
            "vocabulary": getattr(text, "vocab_size", None),
            "whole_every": _whole_every(getattr(text, "layer_types", None) or []),
        }
        found[name] = found[text.model_type] = {
            key: value for key, value in told.items() if isinstance(value, int) and value > 0
        }
    return dict(sorted(found.items()))


def _whole_every(layer_types: list[str]) -> int | None:
    """n where exactly every n-th layer sees the whole context, and the others a window."""
    whole = [kind == "full_attention" for kind in layer_types]
    if set(layer_types) != {"sliding_attention", "full_attention"}:
        return None
    every = whole.index(True) + 1
    return every if whole == [(number % every == 0) for number in range(1, len(whole) + 1)] else None


def _tool_parsers() -> list[str]:
    from vllm.tool_parsers import ToolParserManager

    return list(ToolParserManager.list_registered())


def _reasoning_parsers() -> list[str]:
    from vllm.reasoning import ReasoningParserManager

    return list(ReasoningParserManager.list_registered())


def _capability() -> tuple[int, int] | None:
    """The oldest compute capability that PyTorch has code for; None in a build without CUDA."""
    import torch

    if not torch.version.cuda:
        return None
    # torch.cuda.get_arch_list() says the same only where there is a GPU.
    codes = torch._C._cuda_getArchFlags().split()
    return divmod(min(int("".join(filter(str.isdecimal, code))) for code in codes), 10)


TABLES: dict[str, Callable[[], Any]] = {
    "capability": _capability,
    "defaults": _defaults,
    "formats": _formats,
    "not_float16": _not_float16,
    "prescaled_ropes": _prescaled_ropes,
    "reasoning_parsers": _reasoning_parsers,
    "tool_parsers": _tool_parsers,
}
