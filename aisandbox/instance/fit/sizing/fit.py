"""Whether a model fits into the memory of this machine, and how it is spread over the GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aisandbox.instance.fit.hardware import GIB, Hardware
from aisandbox.instance.fit.sizing import batch, pool, reserve, weights
from aisandbox.instance.fit.sizing.batch import Batch
from aisandbox.instance.fit.sizing.facts import Facts
from aisandbox.instance.fit.sizing.given import Given
from aisandbox.instance.fit.sizing.numerics import numerics
from aisandbox.instance.fit.sizing.pool import Pool
from aisandbox.instance.memory import cpu_kv_cache_bytes

UTILIZATION = 0.92
"""Part of a GPU's memory that vLLM takes by default."""
OUTSIDE = GIB
"""Memory of each GPU left for what lies beside that part: CUDA's own, and what sampling takes for a moment."""
SPARE_BLOCKS = 4
"""A model with recurrent layers computes no more conversations at once than so many quarters less one of the blocks
that are expected: vLLM counts them itself, and does not start when there are fewer."""
LEAST_CONTEXT = 2048
"""Tokens below which a model is of no use in a chat."""
COMFORTABLE_CONTEXT = 32768
"""Another GPU is taken while the context is shorter than this, and the model could use more."""
MOST_CONTEXT = 10 * 1024**2

CPU_OTHERS = 3 * GIB
"""Memory that the CPU flavour leaves to the system, the chat page and vLLM's own program."""
CPU_SHARE = 0.88
"""Most of a large machine's memory for weights and cache: below vllm.service's MemoryMax, with room for the program."""


@dataclass(frozen=True)
class Fit:
    """How a model lies in memory. Sizes are in bytes and hold for each GPU (on a CPU: for the machine)."""

    gpus: int
    """GPUs that share each layer (tensor parallelism)."""
    stages: int
    """Groups of such GPUs, each with its part of the layers (pipeline parallelism, only when the user says so)."""
    memory: int
    """What vLLM may take."""
    weights: int
    reserve: int
    context: int | None
    """Tokens that fit beside them, at most as many as the model was made for; None when it cannot be told."""
    batch: Batch
    pool: Pool | None
    """None when it cannot be told."""

    @property
    def free(self) -> int:
        """Memory for the cache."""
        return max(self.memory - self.weights - self.reserve, 0)

    @property
    def blocks(self) -> int | None:
        """Blocks of the cache; None when it cannot be told."""
        return self.pool.total(self.free) if self.pool else None

    def capacity(self, tokens: int) -> int | None:
        """Tokens in the cache when each conversation has that length; None when it cannot be told."""
        return self.pool.capacity(self.free, tokens) if self.pool else None

    def holds(self, tokens: int | None = None) -> bool:
        """Whether the weights fit, and with them so many tokens of context (where that can be told)."""
        if self.weights + self.reserve > self.memory:
            return False
        return self.context is None or self.context >= (tokens or LEAST_CONTEXT)


def utilization(memory: int, given: Given) -> float:
    """Part of a GPU's memory for vLLM: its default, less on small GPUs, or what the user says."""
    return given.number("--gpu-memory-utilization") or min(UTILIZATION, int(100 * (memory - OUTSIDE) / memory) / 100)


def on_gpus(facts: Facts, hardware: Hardware, given: Given, online: bool) -> list[Fit]:
    """Every way to spread the model over this machine's GPUs that vLLM accepts, from few GPUs to many.

    For each number of GPUs, those that compute many conversations at once come first.
    """
    stages = int(given.number("--pipeline-parallel-size") or 1)
    asked = int(given.number("--tensor-parallel-size") or 0)
    most = len(hardware.gpus) // stages
    counts = [asked] if asked else range(1, most + 1)
    return [
        _on_gpus(facts, count, stages, step, hardware, given, online)
        for count in counts
        if count <= most and divides(facts, count, given)
        for step in batch.choices(facts, hardware, given)
    ]


def divides(facts: Facts, gpus: int, given: Given) -> bool:
    """Whether vLLM can cut the model into so many equal parts."""
    heads, kv_heads = facts.heads or gpus, facts.kv_heads or gpus
    latent = bool(facts.caches) and all(cache.heads is None for cache in facts.caches or ())
    block = facts.quantization.block if facts.quantization else None
    whole_experts = given.has("--enable-expert-parallel")
    return (
        heads % gpus == 0
        and (latent or kv_heads % gpus == 0 or gpus % kv_heads == 0)
        and (not facts.vision_heads or given.has("--language-model-only") or facts.vision_heads % gpus == 0)
        and (not block or whole_experts or gpus == 1 or all(size % (gpus * block) == 0 for size in facts.sharded_sizes))
    )


def _on_gpus(facts: Facts, gpus: int, stages: int, step: Batch, hardware: Hardware, given: Given, online: bool) -> Fit:
    numbers = numerics(facts, hardware, given)
    total = int(hardware.gpu_memory_gib * GIB)
    memory = int(utilization(total, given) * total)
    offloaded = int((given.number("--cpu-offload-gb") or 0) * GIB)
    loaded = max(weights.on_each(facts, numbers, online, gpus, stages, hardware.capability) - offloaded, 0)
    others = reserve.of(facts, numbers, step, gpus, stages, given)
    blocks = pool.of(facts, numbers, gpus, stages, step.tokens_in_flight)
    fit = _with_context(Fit(gpus, stages, memory, loaded, others, None, step, blocks), facts)
    if facts.state and fit.blocks and not given.has("--max-num-seqs"):
        most = max(fit.blocks - fit.blocks // SPARE_BLOCKS, 1)
        return replace(fit, batch=replace(step, conversations=min(step.conversations, most)))
    return fit


def on_cpu(facts: Facts, hardware: Hardware, given: Given, online: bool) -> Fit:
    """The model in this machine's own memory."""
    numbers = numerics(facts, hardware, given)
    total = int(hardware.ram_gib * GIB)
    memory = max(min(total - CPU_OTHERS, int(CPU_SHARE * total)), 0)
    loaded = weights.in_memory(facts, numbers, online)
    # No more than vLLM is to have: what is free beyond stays free.
    memory = min(memory, loaded + cpu_kv_cache_bytes(loaded))
    step = batch.default(facts, hardware, given)
    return _with_context(
        Fit(1, 1, memory, loaded, 0, None, step, pool.of(facts, numbers, 1, 1, step.tokens_in_flight)), facts
    )


def _with_context(fit: Fit, facts: Facts) -> Fit:
    """The fit with the longest context that fits into its free memory, at most the model's own."""
    if fit.pool is None or not facts.weight_bytes:
        return fit
    return replace(fit, context=fit.pool.longest(fit.free, facts.max_context or MOST_CONTEXT))
