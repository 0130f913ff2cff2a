"""What each layer of a model keeps of a conversation, read from its untrusted configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aisandbox.instance.fit.sizing.config import section, whole, word, words
from aisandbox.instance.fit.tables import Defaults

MOST_LAYERS = 2000
RECURRENT = ("linear_attention", "mamba", "mamba2", "conv", "recurrent")
"""Kinds of layers that keep a state of fixed size for each conversation."""
STATELESS = ("mlp", "moe")
FLOAT32_STATE = ("qwen3_5", "nemotron_h")
"""Model types (as they begin) whose states are float32; others' have the model's own format."""
INDEXER_BLOCK = 128
"""Numbers (of one byte) of DeepSeek's sparse attention index that share a scale of 4 bytes."""


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
    index_bytes: int = 0
    """Bytes for each token beside the numbers: the index of sparse attention."""

    def token_bytes(self, value_bytes: int, gpus: int) -> int:
        """Bytes that one of so many GPUs keeps of a token in one of the layers."""
        heads = 1 if self.heads is None else max(1, -(-self.heads // gpus))
        return heads * self.values * value_bytes + self.index_bytes


@dataclass(frozen=True)
class State:
    """What a group of recurrent layers keeps of each conversation, however long it is."""

    layers: int
    recurrent: int
    """Numbers of the recurrence, in each layer."""
    convolution: int
    """Numbers of the convolution before it."""
    float32: bool
    """Whether the recurrence is kept in 4 bytes instead of the model's own format."""

    def layer_bytes(self, value_bytes: int, gpus: int) -> int:
        """Bytes that one of so many GPUs keeps in one of the layers."""
        recurrent = self.recurrent * (4 if self.float32 else value_bytes)
        return (recurrent + self.convolution * value_bytes) // gpus


def kv_heads(text: Mapping[str, Any], heads: int | None) -> int | None:
    return whole(text, "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num") or heads


def count(text: Mapping[str, Any]) -> int | None:
    """Number of layers; None when it is not told or absurd."""
    layers = whole(text, "num_hidden_layers", "n_layer", "num_layers")
    return layers if layers and layers <= MOST_LAYERS else None


def caches(text: Mapping[str, Any], hidden: int, heads: int | None, defaults: Defaults) -> tuple[Cache, ...] | None:
    """What the attention layers keep; None when the configuration does not tell enough."""
    layers = count(text)
    if not layers or not heads:
        return None
    latent = whole(text, "kv_lora_rank")
    whole_context, window, none = _kinds(text, layers, defaults)
    if latent:
        index = whole(text, "index_head_dim") or 0
        values = latent + (whole(text, "qk_rope_head_dim") or 0)
        return (Cache(layers - none, values, None, index_bytes=index + 4 * (index // INDEXER_BLOCK)),)
    head = whole(text, "head_dim") or hidden // heads
    shared_heads = kv_heads(text, heads) or heads
    # Gemma 4 has larger and fewer heads in the layers that see the whole context.
    far_head = whole(text, "global_head_dim") or head
    far_heads = whole(text, "num_global_key_value_heads") or shared_heads
    if not head or not far_head:
        return None
    near = layers - none - whole_context
    far = (Cache(whole_context, 2 * far_head, far_heads),) if whole_context else ()
    return (*far, *((Cache(near, 2 * head, shared_heads, window),) if near else ()))


def state(text: Mapping[str, Any], hidden: int) -> State | None:
    """What the recurrent layers keep; None when there are none."""
    layers = count(text)
    recurrent = _recurrent_layers(text, layers) if layers else 0
    if not recurrent:
        return None
    told = word(text, "mamba_ssm_dtype", "mamba_ssm_cache_dtype")
    float32 = told == "float32" if told else (word(text, "model_type") or "").startswith(FLOAT32_STATE)
    return State(recurrent, *_state_values(text, hidden), float32)


def _state_values(text: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """Numbers of the recurrence and of the convolution, in each layer."""
    heads = whole(text, "linear_num_value_heads")
    if heads:  # gated delta net
        keys = (whole(text, "linear_num_key_heads") or heads) * (whole(text, "linear_key_head_dim") or 0)
        values = heads * (whole(text, "linear_value_head_dim") or 0)
        kernel = whole(text, "linear_conv_kernel_dim") or 1
        return values * (whole(text, "linear_key_head_dim") or 0), (2 * keys + values) * max(kernel - 1, 0)
    size = whole(text, "ssm_state_size", "mamba_d_state", "state_size")
    if size:  # Mamba 1 and 2
        heads = whole(text, "mamba_num_heads", "mamba_n_heads")
        each = whole(text, "mamba_head_dim", "mamba_d_head")
        inner = heads * each if heads and each else (whole(text, "mamba_expand", "expand") or 2) * hidden
        groups = whole(text, "n_groups", "mamba_n_groups") or 0
        kernel = whole(text, "conv_kernel", "mamba_d_conv") or 1
        return inner * size, (inner + 2 * groups * size) * max(kernel - 1, 0)
    short = whole(text, "conv_L_cache")  # LFM2
    return 0, (whole(text, "conv_dim") or hidden) * max((short or 1) - 1, 0)


def _recurrent_layers(text: Mapping[str, Any], layers: int) -> int:
    kinds = words(text, "layer_types")
    if len(kinds) == layers:
        return sum(kind in RECURRENT for kind in kinds)
    pattern = word(text, "hybrid_override_pattern")  # Nemotron-H: M is Mamba, * attention, - neither
    if pattern and 0 < pattern.count("*") < layers:
        return pattern.count("M")
    interval = whole(text, "full_attention_interval", "attn_layer_period")
    return layers - max(layers // interval, 1) if interval and interval > 1 else 0


def _kinds(text: Mapping[str, Any], layers: int, defaults: Defaults) -> tuple[int, int | None, int]:
    """Layers that keep the whole context, the window of the others, and layers that keep nothing for each token.

    What is not understood counts as keeping the whole context: the estimate may promise too little, not too much.
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
        none = sum(kind in RECURRENT or kind in STATELESS for kind in kinds)
        near = sum(_is_near(kind) for kind in kinds) if window else 0
        return own - none - near, window, shared + none
    pattern = word(text, "hybrid_override_pattern")
    if pattern and 0 < pattern.count("*") < layers:
        return pattern.count("*"), None, layers - pattern.count("*")
    interval = whole(text, "full_attention_interval", "attn_layer_period")
    if interval and interval > 1:
        return max(own // interval, 1), None, layers - max(own // interval, 1)
    if not window:
        return own, None, shared
    every = whole(text, "sliding_window_pattern", "_sliding_window_pattern")
    every = every or defaults.whole_every
    whole_context = own // every if every else 0
    return whole_context, window, shared


def _is_near(kind: str) -> bool:
    return "sliding" in kind or "chunked" in kind or "local" in kind


def position_values(text: Mapping[str, Any], max_context: int | None) -> int:
    """Numbers in the tables of rotary positions, one table for each kind of attention that has its own."""
    heads = whole(text, "num_attention_heads", "n_head", "num_heads")
    head = whole(text, "qk_rope_head_dim", "head_dim") or (whole(text, "hidden_size") or 0) // (heads or 1)
    ropes = section(text, "rope_parameters", "rope_scaling")
    kinds = [kind for kind in ropes if isinstance(ropes[kind], dict)]
    far = whole(text, "global_head_dim") or head
    widths = [far if "full" in kind else head for kind in kinds] or [head]
    return (max_context or 0) * sum(widths)
