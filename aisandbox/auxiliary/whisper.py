"""Whisper out of CTranslate2's files, as a model that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)

from aisandbox.auxiliary import ctranslate2_file
from aisandbox.auxiliary.ctranslate2_file import Array

END, START, START_OF_PREVIOUS, NO_TIMESTAMPS = (
    "<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"
)  # fmt: skip
LATEST_START = 50
"""A recording's first words begin within its first second: in steps of 20 ms."""
_ATTENTIONS = {"self_attention": ("self_attn", [["q", "k", "v"], ["out"]]),
               "attention": ("encoder_attn", [["q"], ["k", "v"], ["out"]])}  # fmt: skip
_NORMS = {"self_attention": "self_attn_layer_norm", "attention": "encoder_attn_layer_norm", "ffn": "final_layer_norm"}
_VECTORS = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias", "encodings": "weight"}
_REST = {"embeddings": "embed_tokens", "position_encodings": "embed_positions", "layer_norm": "layer_norm",
         "conv1": "conv1", "conv2": "conv2"}  # fmt: skip


def convert(folder: Path, out: Path) -> None:
    """Write the model of CTranslate2's folder to `out`, with its tokenizer and what it hears with.

    Args:
        folder: has model.bin, config.json and tokenizer.json, of a Whisper for English alone.
    """
    variables = ctranslate2_file.read(folder / "model.bin")
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    weights = {f"model.{name}": torch.from_numpy(value.copy()) for name, value in _weights(variables)}
    model = WhisperForConditionalGeneration(_config(variables, tokenizer)).half()
    left = model.load_state_dict({**weights, "proj_out.weight": weights["model.decoder.embed_tokens.weight"]})
    if left.missing_keys or left.unexpected_keys:
        raise ValueError(f"{folder}: not the weights of a Whisper: {left}")
    model.generation_config = _generation(told, tokenizer)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    WhisperFeatureExtractor(feature_size=variables["encoder/conv1/weight"].shape[1]).save_pretrained(out)


def _weights(variables: dict[str, Array]) -> Iterator[tuple[str, Array]]:
    for name, value in variables.items():
        half, *parts = name.split("/")
        if parts[-1] not in _VECTORS:
            continue
        if not parts[0].startswith("layer_") or parts[0] == "layer_norm":
            yield f"{half}.{_REST[parts[0]]}.{_VECTORS[parts[-1]]}", value
            continue
        layer = f"{half}.layers.{parts[0].removeprefix('layer_')}"
        for part, piece in _of_layer(parts[1], parts[2], parts[3], value):
            yield f"{layer}.{part}", piece


def _of_layer(block: str, part: str, kind: str, value: Array) -> Iterator[tuple[str, Array]]:
    """One variable of a layer as transformers' parameters: projections that are stacked here are apart there."""
    if part == "layer_norm":
        yield f"{_NORMS[block]}.{_VECTORS[kind]}", value
    elif block == "ffn":
        yield f"fc{int(part.removeprefix('linear_')) + 1}.{kind}", value
    else:
        title, projections = _ATTENTIONS[block]
        names = projections[int(part.removeprefix("linear_"))]
        for name, piece in zip(names, value.reshape(len(names), -1, *value.shape[1:]), strict=True):
            # Keys have no bias; CTranslate2 stores zeros.
            if (name, kind) != ("k", "bias"):
                yield f"{title}.{name}_proj.{kind}", piece


def _config(variables: dict[str, Array], tokenizer: Any) -> WhisperConfig:
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    layers = {half: sum(name.endswith("ffn/linear_0/weight") for name in variables if name.startswith(half))
              for half in ("encoder", "decoder")}  # fmt: skip
    hidden = variables["encoder/layer_0/ffn/linear_0/weight"].shape[0]
    end, start = tokenizer.convert_tokens_to_ids([END, START])
    return WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=hidden,
        decoder_ffn_dim=hidden,
        max_source_positions=variables["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
    )


def _generation(told: dict[str, Any], tokenizer: Any) -> GenerationConfig:
    end, start, previous, plain = tokenizer.convert_tokens_to_ids([END, START, START_OF_PREVIOUS, NO_TIMESTAMPS])
    return GenerationConfig(
        alignment_heads=told["alignment_heads"],
        suppress_tokens=told["suppress_ids"],
        begin_suppress_tokens=told["suppress_ids_begin"],
        is_multilingual=False,
        no_timestamps_token_id=plain,
        max_initial_timestamp_index=LATEST_START,
        prev_sot_token_id=previous,
        decoder_start_token_id=start,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        max_length=448,
        return_timestamps=False,
    )
