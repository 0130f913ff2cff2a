"""What a model's small files tell about the memory that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aisandbox.instance.fit.sizing import layers, quantization, shape
from aisandbox.instance.fit.sizing.config import number, section, text_part, whole, word, words
from aisandbox.instance.fit.sizing.layers import Cache, State
from aisandbox.instance.fit.sizing.quantization import Quantization
from aisandbox.instance.fit.sizing.shape import Shape
from aisandbox.instance.fit.tables import Defaults, Tables

BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
MOST_ARCHITECTURES = 4
MOST_ROPE_FACTOR = 1000


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
    float16: bool
    """Whether vLLM computes models of this type in float16."""
    quantization: Quantization | None
    heads: int | None
    kv_heads: int | None
    vision_heads: int | None
    vision: bool
    """Whether it has a part for pictures or sound."""
    sees_at_once: bool
    """Whether a picture's tokens look at each other in both directions, so that one batch must hold all of them."""
    sharded_sizes: tuple[int, ...]
    """Widths of layers that tensor parallelism cuts into equal parts."""
    embedding_values: int
    """Numbers in the tables between tokens and vectors, which are not compressed while loading."""
    caches: tuple[Cache, ...] | None
    """None when the configuration does not tell enough."""
    state: State | None
    """What recurrent layers keep of each conversation; None without such layers."""
    max_context: int | None
    shape: Shape
    tied: bool
    """Whether one table leads from tokens to vectors and back."""
    position_values: int
    """Numbers in the tables of positions, which vLLM makes itself."""

    @property
    def bytes_per_weight(self) -> int | None:
        """Bytes of one number in the weight files; None for compressed weights or where it is not told."""
        return None if self.quantization else BYTES.get(self.dtype or "")


def read(
    config: Mapping[str, Any],
    weight_files: Mapping[str, int],
    tables: Tables,
    quant_config: Mapping[str, Any] | None = None,
) -> Facts:
    """The facts in a model's configuration and the sizes of its weight files, all of them untrusted.

    Raises:
        UnobtainableError: the configuration holds nonsense.
    """
    text = text_part(config)
    vision = section(config, "vision_config", "vision_tower_config")
    hidden = whole(text, "hidden_size", "n_embd", "d_model") or 0
    heads = whole(text, "num_attention_heads", "n_head", "num_heads")
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings")) is True
    model_type = word(text, "model_type")
    defaults = tables.of(model_type)
    max_context = _max_context(text, tables, defaults)
    model_type = model_type or word(config, "model_type")
    return Facts(
        architectures=words(config, "architectures")[:MOST_ARCHITECTURES],
        model_type=model_type,
        remote_code=bool(section(config, "auto_map")),
        weight_bytes=sum(size for size in weight_files.values() if size > 0),
        dtype=_dtype(config, text),
        float16=model_type not in tables.not_float16,
        quantization=quantization.find(config, text, quant_config),
        heads=heads,
        kv_heads=layers.kv_heads(text, heads),
        vision_heads=whole(vision, "num_attention_heads", "num_heads"),
        vision=bool(vision) or bool(section(config, "audio_config")),
        sees_at_once=bool(vision) and _sees_at_once(text),
        sharded_sizes=_sharded(text),
        embedding_values=(1 if tied else 2) * (whole(text, "vocab_size") or 0) * hidden,
        caches=layers.caches(text, hidden, heads, defaults),
        state=layers.state(text, hidden),
        max_context=max_context,
        shape=shape.read(text, defaults),
        tied=tied,
        position_values=layers.position_values(text, max_context),
    )


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    found = word(config, "dtype", "torch_dtype") or word(text, "dtype", "torch_dtype")
    return found.removeprefix("torch.") if found else None


def _sees_at_once(text: Mapping[str, Any]) -> bool:
    """The larger Gemma 4 do; the small ones, whose last layers share a cache, do not."""
    if not (word(text, "model_type") or "").startswith("gemma4"):
        return False
    told = "use_bidirectional_attention"
    return word(text, told) == "vision" if told in text else not whole(text, "num_kv_shared_layers")


def _sharded(text: Mapping[str, Any]) -> tuple[int, ...]:
    experts = whole(text, "num_experts", "num_local_experts", "n_routed_experts")
    keys = ["moe_intermediate_size", "shared_expert_intermediate_size"] if experts else []
    if not experts or whole(text, "first_k_dense_replace") or not whole(text, "moe_intermediate_size"):
        keys.append("intermediate_size")
    sizes = (whole(text, key) for key in keys)
    return tuple(size for size in sizes if size)


def _max_context(text: Mapping[str, Any], tables: Tables, defaults: Defaults) -> int | None:
    """Longest context that the model was made for, by vLLM's rules."""
    keys = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
    told = [tokens for key in keys if (tokens := whole(text, key))]
    if not told:
        return defaults.context
    longest = min(told)
    rope = section(text, "rope_scaling", "rope_parameters")
    kind = word(rope, "rope_type", "type")
    if kind == "longrope":
        return whole(text, "original_max_position_embeddings") or longest
    factor = number(rope, "factor")
    prescaled = kind in tables.prescaled_ropes or "gemma3" in (word(text, "model_type") or "")
    return longest if prescaled or not kind or not factor else int(longest * min(factor, MOST_ROPE_FACTOR))
