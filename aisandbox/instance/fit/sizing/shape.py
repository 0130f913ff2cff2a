"""The widths of a model's layers: how many numbers they hold, and how many they compute for each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aisandbox.instance.fit.sizing import layers
from aisandbox.instance.fit.sizing.config import whole
from aisandbox.instance.fit.tables import Defaults


@dataclass(frozen=True)
class Shape:
    """Widths in numbers; 0 where the configuration does not tell."""

    layers: int
    hidden: int
    vocabulary: int
    attention: int
    """Numbers in the matrices of one layer's attention."""
    latent: int
    """Of these, numbers that every GPU holds in full (the first half of latent attention, and its index)."""
    intermediate: int
    """Width of a layer that is not divided into experts, or of what all tokens share beside the experts."""
    experts: int
    expert_width: int
    experts_per_token: int
    predicting: int
    """Further layers that guess tokens ahead (MTP): vLLM loads them only for speculative decoding."""
    beside_layers: int
    """Numbers in tables that belong to each layer, beside the one between tokens and vectors."""

    @property
    def layer_values(self) -> int:
        """Numbers in one layer."""
        return self.attention + 3 * self.hidden * (self.intermediate + self.experts * self.expert_width)

    @property
    def predicting_values(self) -> int:
        """Numbers in the layers that vLLM does not load, each with the matrix that joins two vectors."""
        return self.predicting * (self.layer_values + 2 * self.hidden**2)

    def step_values(self, gpus: int) -> int:
        """Numbers that a GPU has in memory at once for each token that it computes."""
        expert = self.experts_per_token * (3 * self.expert_width // gpus + self.hidden) if self.experts else 0
        return 4 * self.hidden + max(3 * self.intermediate // gpus, expert)


def read(text: Mapping[str, Any], defaults: Defaults) -> Shape:
    """The widths that a configuration tells."""
    hidden = whole(text, "hidden_size", "n_embd", "d_model") or 0
    heads = whole(text, "num_attention_heads", "n_head", "num_heads") or 0
    experts = whole(text, "num_experts", "num_local_experts", "n_routed_experts") or 0
    dense = whole(text, "intermediate_size") or 0
    expert_width = (whole(text, "moe_intermediate_size") or dense) if experts else 0
    shared = whole(text, "shared_expert_intermediate_size")
    if shared is None:
        shared = (whole(text, "n_shared_experts") or 0) * expert_width
    attention, latent = _attention(text, hidden, heads)
    count = layers.count(text) or 0
    each = whole(text, "hidden_size_per_layer_input") or 0
    return Shape(
        layers=count,
        hidden=hidden,
        vocabulary=whole(text, "vocab_size") or defaults.vocabulary or 0,
        attention=attention,
        latent=latent,
        intermediate=shared if experts else dense,
        experts=experts,
        expert_width=expert_width,
        experts_per_token=whole(text, "num_experts_per_tok", "moe_topk", "top_k_experts") or 0,
        predicting=min(whole(text, "mtp_num_hidden_layers", "num_nextn_predict_layers") or 0, count),
        beside_layers=count * each * (whole(text, "vocab_size_per_layer_input", "vocab_size") or 0),
    )


def _attention(text: Mapping[str, Any], hidden: int, heads: int) -> tuple[int, int]:
    """Numbers in one layer's attention, and those of them that every GPU holds in full."""
    rank = whole(text, "kv_lora_rank")
    if rank:
        rope, plain = (whole(text, key) or 0 for key in ("qk_rope_head_dim", "qk_nope_head_dim"))
        value = whole(text, "v_head_dim") or 0
        query_rank = whole(text, "q_lora_rank") or 0
        index_heads, index_head = whole(text, "index_n_heads") or 0, whole(text, "index_head_dim") or 0
        index = query_rank * index_heads * index_head + hidden * (index_heads + index_head)
        latent = hidden * (query_rank + rank + rope) + index
        spread = (query_rank or hidden) * heads * (plain + rope) + heads * (rank * (plain + value) + value * hidden)
        return latent + spread, latent
    head = whole(text, "head_dim") or hidden // (heads or 1)
    queries = 2 if text.get("attn_output_gate") is True else 1
    return hidden * head * (heads * (queries + 1) + 2 * (layers.kv_heads(text, heads) or 0)), 0
