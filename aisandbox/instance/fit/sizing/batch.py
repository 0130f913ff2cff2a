"""How much vLLM computes at once: conversations and tokens.

By hand: vLLM decides it in code, by the GPU that it runs on, which a bake has not. tests/gateway/test_engine_tables.py
compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from aisandbox.instance.fit.hardware import Hardware
from aisandbox.instance.fit.sizing.facts import Facts
from aisandbox.instance.fit.sizing.given import Given

LARGE_GIB = 70
"""From here on vLLM computes more at once, except on an A100."""
HUGE_GIB = 160
SMALL_GIB = 24.5
"""Up to here the memory outside vLLM's part does not hold the sampler of 256 conversations with a large vocabulary."""
LARGE_VOCABULARY = 250_000
FEW, SOME, MANY = 32, 64, 256
CONCURRENT_BATCHES = 2
"""vLLM schedules a batch while it computes the one before."""
VIDEO_TOKENS = 32 * 78
"""What a model that must see a video at once computes in one batch: frames, and tokens of each."""


@dataclass(frozen=True)
class Batch:
    """What vLLM computes at once."""

    conversations: int
    """`--max-num-seqs`"""
    tokens: int
    """`--max-num-batched-tokens`"""

    @property
    def tokens_in_flight(self) -> int:
        """Tokens whose cache a sliding window cannot give back yet."""
        return CONCURRENT_BATCHES * self.tokens


def default(facts: Facts, hardware: Hardware, given: Given) -> Batch:
    """What vLLM takes by itself, or what the user says."""
    memory = hardware.gpu_memory_gib
    a100 = any("a100" in gpu.name.lower() for gpu in hardware.gpus)
    large = hardware.flavour == "cuda" and (memory >= HUGE_GIB or (memory >= LARGE_GIB and not a100))
    tokens = (16384 if memory >= HUGE_GIB else 8192) if large else 2048
    if facts.sees_at_once and not given.has("--language-model-only"):
        tokens = max(tokens, VIDEO_TOKENS)
    tokens = int(given.number("--max-num-batched-tokens") or tokens)
    # vLLM gives each conversation at least one token of a batch.
    return Batch(int(given.number("--max-num-seqs") or min(1024 if large else MANY, tokens)), tokens)


def choices(facts: Facts, hardware: Hardware, given: Given) -> list[Batch]:
    """What vLLM may be told to compute at once, the most first: less leaves more memory for the cache."""
    usual = default(facts, hardware, given)
    if given.has("--max-num-seqs"):
        return [usual]
    memory, most = hardware.gpu_memory_gib, usual.conversations
    if facts.state:  # more of them than blocks of the cache, and vLLM does not start
        most = min(most, MANY if memory >= LARGE_GIB else SOME)
    if memory <= SMALL_GIB and facts.shape.vocabulary > LARGE_VOCABULARY:
        most = FEW
    return [Batch(most, usual.tokens), *(Batch(fewer, usual.tokens) for fewer in (MANY, SOME) if fewer < most)]
