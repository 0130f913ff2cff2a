"""What a model's small files tell about the memory that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aisandbox.instance.sizing import quantization
from aisandbox.instance.sizing.config import number, section, text_part, whole, word, words
from aisandbox.instance.sizing.quantization import Quantization

BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
PREFILL_TOKENS = 2048
"""Tokens that vLLM computes at once by default on small GPUs; a sliding window's cache holds them beside its window."""
MOST_LAYERS = 2000
MOST_ARCHITECTURES = 4
ALTERNATING = {"gemma2": 2, "cohere2": 4, "gemma3": 6, "gemma3_text": 6}
"""Model types whose every n-th layer sees the whole context, where their configuration does not say so."""
DEFAULT_CONTEXT = {"gemma3_text": 131072}
"""Longest context of model types whose configuration leaves it to the program."""
PRESCALED_ROPE = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Extensions of the context that `max_position_embeddings` includes already."""
MOST_ROPE_FACTOR = 1000
NOT_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "glm4")
"""Model types that vLLM refuses to compute in float16."""


@dataclass(frozen=True)
class Cache:
    """What a group of equal layers keeps of every token."""

    layers: int
    values: int
    """Numbers for each head and token."""
    heads: int | None
    """Heads that are spread over GPUs; None: all of it on every GPU (MLA)."""
    window: int | None = None
    """Tokens that are kept at most; None keeps all."""

    def numbers(self, tokens: int, gpus: int) -> int:
        """Numbers that one of so many GPUs keeps for a context."""
        kept = tokens if self.window is None else min(tokens, self.window + PREFILL_TOKENS)
        heads = 1 if self.heads is None else max(1, -(-self.heads // gpus))
        return self.layers * heads * self.values * kept


@dataclass(frozen=True)
class Facts:
    """A model as its publisher describes it. None stands for what is not told."""

    architectures: tuple[str, ...]
    model_type: str | None
    remote_code: bool
    """Whether it brings Python of its own."""
    weight_bytes: int
    """Size of the weight files; 0 when unknown."""
    dtype: str | None
    quantization: Quantization | None
    heads: int | None
    kv_heads: int | None
    vision_heads: int | None
    vision: bool
    """Whether it has a part for pictures or sound."""
    sharded_sizes: tuple[int, ...]
    """Widths of layers that tensor parallelism cuts into equal parts."""
    embedding_values: int
    """Numbers in the tables between tokens and vectors, which are not compressed while loading."""
    caches: tuple[Cache, ...] | None
    """None when the configuration does not tell enough."""
    state_values: int
    """Numbers that are kept for each conversation, however long it is."""
    max_context: int | None

    @property
    def bytes_per_weight(self) -> int | None:
        """Bytes of one number in the weight files; None for compressed weights or where it is not told."""
        return None if self.quantization else BYTES.get(self.dtype or "")


def read(
    config: Mapping[str, Any], weight_files: Mapping[str, int], quant_config: Mapping[str, Any] | None = None
) -> Facts:
    """The facts in a model's configuration and the sizes of its weight files, all of them untrusted.

    Raises:
        UnobtainableError: the configuration holds nonsense.
    """
    text = text_part(config)
    vision = section(config, "vision_config", "vision_tower_config")
    hidden = whole(text, "hidden_size", "n_embd", "d_model") or 0
    heads = whole(text, "num_attention_heads", "n_head", "num_heads")
    tables = 1 if (text.get("tie_word_embeddings", config.get("tie_word_embeddings")) is True) else 2
    return Facts(
        architectures=words(config, "architectures")[:MOST_ARCHITECTURES],
        model_type=word(text, "model_type") or word(config, "model_type"),
        remote_code=bool(section(config, "auto_map")),
        weight_bytes=sum(size for size in weight_files.values() if size > 0),
        dtype=_dtype(config, text),
        quantization=quantization.find(config, text, quant_config),
        heads=heads,
        kv_heads=_kv_heads(text, heads),
        vision_heads=whole(vision, "num_attention_heads", "num_heads"),
        vision=bool(vision) or bool(section(config, "audio_config")),
        sharded_sizes=_sharded(text),
        embedding_values=tables * (whole(text, "vocab_size") or 0) * hidden,
        caches=_caches(text, hidden, heads),
        state_values=_state(text),
        max_context=_max_context(text),
    )


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    found = word(config, "dtype", "torch_dtype") or word(text, "dtype", "torch_dtype")
    return found.removeprefix("torch.") if found else None


def _kv_heads(text: Mapping[str, Any], heads: int | None) -> int | None:
    return whole(text, "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num") or heads


def _sharded(text: Mapping[str, Any]) -> tuple[int, ...]:
    experts = whole(text, "num_experts", "num_local_experts", "n_routed_experts")
    keys = ["moe_intermediate_size", "shared_expert_intermediate_size"] if experts else []
    if not experts or whole(text, "first_k_dense_replace") or not whole(text, "moe_intermediate_size"):
        keys.append("intermediate_size")
    sizes = (whole(text, key) for key in keys)
    return tuple(size for size in sizes if size)


def _caches(text: Mapping[str, Any], hidden: int, heads: int | None) -> tuple[Cache, ...] | None:
    layers = whole(text, "num_hidden_layers", "n_layer", "num_layers")
    if not layers or layers > MOST_LAYERS or not heads:
        return None
    latent = whole(text, "kv_lora_rank")
    whole_context, window, none = _kinds(text, layers)
    if latent:
        return (Cache(layers - none, latent + (whole(text, "qk_rope_head_dim") or 0), heads=None),)
    head = whole(text, "head_dim") or hidden // heads
    kv_heads = _kv_heads(text, heads) or heads
    # Gemma 4 has larger and fewer heads in the layers that see the whole context.
    far_head = whole(text, "global_head_dim") or head
    far_kv_heads = whole(text, "num_global_key_value_heads") or kv_heads
    if not head or not far_head:
        return None
    near = layers - none - whole_context
    return (
        Cache(whole_context, 2 * far_head, far_kv_heads),
        *((Cache(near, 2 * head, kv_heads, window),) if near else ()),
    )


def _kinds(text: Mapping[str, Any], layers: int) -> tuple[int, int | None, int]:
    """Layers that keep the whole context, the window of the others, and layers that keep nothing for each token.

    What is not understood counts as keeping the whole context, so that memory is never promised in vain.
    """
    window = whole(text, "sliding_window", "attention_chunk_size") or None
    if text.get("use_sliding_window") is False:
        window = None
    # Layers at the end that use the cache of an earlier one.
    own = layers - min(whole(text, "num_kv_shared_layers") or 0, layers - 1)
    shared = layers - own
    kinds = words(text, "layer_types")
    if len(kinds) == layers:
        kinds = kinds[:own]
        none = sum(_keeps_nothing(kind) for kind in kinds)
        near = sum(_is_near(kind) for kind in kinds) if window else 0
        return own - none - near, window, shared + none
    pattern = word(text, "hybrid_override_pattern")  # Nemotron-H: * is attention
    if pattern and 0 < pattern.count("*") < layers:
        return pattern.count("*"), None, layers - pattern.count("*")
    interval = whole(text, "full_attention_interval", "attn_layer_period")
    if interval and interval > 1:
        return max(own // interval, 1), None, layers - max(own // interval, 1)
    if not window:
        return own, None, shared
    every = whole(text, "sliding_window_pattern", "_sliding_window_pattern")
    every = every or ALTERNATING.get(word(text, "model_type") or "")
    whole_context = own // every if every else 0
    return whole_context, window, shared


def _is_near(kind: str) -> bool:
    return "sliding" in kind or "chunked" in kind or "local" in kind


def _keeps_nothing(kind: str) -> bool:
    return kind in ("linear_attention", "mamba", "mamba2", "conv", "recurrent", "mlp", "moe")


def _state(text: Mapping[str, Any]) -> int:
    """Numbers (of 4 bytes) that layers of linear attention keep for each conversation."""
    layers = sum(kind == "linear_attention" for kind in words(text, "layer_types"))
    heads = whole(text, "linear_num_value_heads") or 0
    return layers * heads * (whole(text, "linear_key_head_dim") or 0) * (whole(text, "linear_value_head_dim") or 0)


def _max_context(text: Mapping[str, Any]) -> int | None:
    """Longest context that the model was made for, by vLLM's rules."""
    keys = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
    told = [tokens for key in keys if (tokens := whole(text, key))]
    if not told:
        return DEFAULT_CONTEXT.get(word(text, "model_type") or "")
    longest = min(told)
    rope = section(text, "rope_scaling", "rope_parameters")
    kind = word(rope, "rope_type", "type")
    if kind == "longrope":
        return whole(text, "original_max_position_embeddings") or longest
    factor = number(rope, "factor")
    prescaled = kind in PRESCALED_ROPE or "gemma3" in (word(text, "model_type") or "")
    return longest if prescaled or not kind or not factor else int(longest * min(factor, MOST_ROPE_FACTOR))
