"""vLLM's cache: blocks of one size, which every group of equal layers takes as it needs them.

After `vllm/v1/core/kv_cache_utils.py` and `vllm/platforms/interface.py` of vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aisandbox.instance.fit.sizing.facts import Facts
from aisandbox.instance.fit.sizing.numerics import Numerics

BLOCK_TOKENS = 16
"""Of these only the first is a constant of vLLM's; the others are decided in its code, by kind of attention."""
LATENT_BLOCK_TOKENS = 64
LATENT_HYBRID_BLOCK_TOKENS = 128
ALIGNED_STATES = 2
"""Pages that each group of recurrent layers takes for a conversation while prefixes are cached."""
UNEVEN = 1.5
"""Groups are as small as the smallest kind of layers, unless the largest is less than so many times larger."""


@dataclass(frozen=True)
class Kind:
    """Layers that keep the same."""

    groups: int
    block_tokens: int | None
    """Tokens in a block; None for recurrent layers, whose blocks hold a state each."""
    window: int | None

    def blocks(self, tokens: int, in_flight: int) -> int:
        """Blocks that a conversation of that length takes."""
        if self.block_tokens is None:
            return self.groups * ALIGNED_STATES
        if self.window is None:
            return self.groups * -(-tokens // self.block_tokens)
        kept = min(self.window - 1 + in_flight, tokens)
        return self.groups * (-(-kept // self.block_tokens) + 1)


@dataclass(frozen=True)
class Pool:
    """The cache of one GPU."""

    block_bytes: int
    kinds: tuple[Kind, ...]
    in_flight: int
    """Tokens that a sliding window keeps beside its own."""

    def blocks(self, tokens: int) -> int:
        """Blocks that a conversation of that length takes."""
        return sum(kind.blocks(tokens, self.in_flight) for kind in self.kinds)

    def bytes(self, tokens: int) -> int:
        """Memory that a conversation of that length takes."""
        return self.blocks(tokens) * self.block_bytes

    def total(self, free: int) -> int:
        """Blocks in so much memory."""
        return free // self.block_bytes

    def capacity(self, free: int, tokens: int) -> int:
        """Tokens of all conversations together that such memory holds, when each has that length."""
        return self.total(free) * tokens // self.blocks(tokens)

    def longest(self, free: int, most: int) -> int:
        """The longest conversation that such memory holds, at most so long."""
        usable = self.total(free) - 1  # vLLM keeps one block empty
        least = 0
        while least < most:
            middle = (least + most + 1) // 2
            if self.blocks(middle) <= usable:
                least = middle
            else:
                most = middle - 1
        return least


def of(facts: Facts, numbers: Numerics, gpus: int, stages: int, in_flight: int) -> Pool | None:
    """The cache of a model on each of its GPUs; None when the configuration does not tell enough."""
    caches = [cache for cache in facts.caches or () if cache.layers]
    if not caches:
        return None
    state = facts.state
    latent = any(cache.heads is None for cache in caches)
    unit = (LATENT_HYBRID_BLOCK_TOKENS if state else LATENT_BLOCK_TOKENS) if latent else BLOCK_TOKENS
    each = [cache.token_bytes(numbers.cache_bytes, gpus) for cache in caches]
    page = unit * max(each)
    if state:
        # A block of attention is made as large as a state.
        blocks = -(-state.layer_bytes(numbers.value_bytes, gpus) // (unit * each[0]))
        page = max(page, blocks * unit * each[0])
    size = _group_size([cache.layers for cache in caches] + ([state.layers] if state else []))
    kinds = [
        Kind(-(-cache.layers // size), page // token if page % (unit * token) == 0 else unit, cache.window)
        for cache, token in zip(caches, each, strict=True)
    ]
    if state:
        kinds.append(Kind(-(-state.layers // size), None, None))
    return Pool(max(size * page // stages, 1), tuple(kinds), in_flight)


def _group_size(layers: Iterable[int]) -> int:
    """Layers in each group; the last group of a kind is filled up."""
    counts = list(layers)
    return max(counts) if max(counts) < UNEVEN * min(counts) else min(counts)
