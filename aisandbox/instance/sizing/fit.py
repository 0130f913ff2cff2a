"""Whether a model fits into the memory of this machine, and how it is spread over the GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from aisandbox.instance.engine_args import cpu_kv_cache_bytes
from aisandbox.instance.hardware import GIB, Hardware
from aisandbox.instance.sizing.facts import BYTES, NOT_FLOAT16, Facts
from aisandbox.instance.sizing.given import Given

UTILIZATION = 0.92
"""Part of a GPU's memory that vLLM takes by default."""
OUTSIDE = GIB
"""Memory of each GPU left for what vLLM allocates beside that part: CUDA graphs were seen to take 0.8 GiB."""
RESERVE = 3 * GIB // 2
"""CUDA's own memory, and what a model computes in."""
RESERVE_VISION = GIB
"""More of it for pictures, which vLLM tries out at their largest before it starts."""
RESERVE_SPREAD = GIB // 2
"""More of it on each of several GPUs, to exchange results."""
LEAST_CONTEXT = 2048
"""Tokens below which a model is of no use in a chat."""
COMFORTABLE_CONTEXT = 32768
"""Another GPU is taken while the context is shorter than this, and the model could use more."""
MOST_CONTEXT = 10 * 1024**2
BFLOAT16_CAPABILITY = (8, 0)

CPU_OTHERS = 3 * GIB
"""Memory that the CPU flavour leaves to the system, the chat page and vLLM's own program."""
CPU_SHARE = 0.88
"""Most of a large machine's memory for weights and cache: below vllm.service's MemoryMax, with room for the program."""


@dataclass(frozen=True)
class Numerics:
    """What the model is computed in."""

    dtype: str | None
    """Argument for vLLM; None leaves it to vLLM."""
    value_bytes: int
    """Bytes of one number of the computation."""
    cache_bytes: int
    """Bytes of one number of the cache."""


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

    @property
    def free(self) -> int:
        """Memory for the cache."""
        return max(self.memory - self.weights - self.reserve, 0)

    def holds(self, tokens: int | None = None) -> bool:
        """Whether the weights fit, and with them so many tokens of context (where that can be told)."""
        if self.weights + self.reserve > self.memory:
            return False
        return self.context is None or self.context >= (tokens or LEAST_CONTEXT)


def numerics(facts: Facts, hardware: Hardware, given: Given) -> Numerics:
    """What the model is computed in on this machine. Old GPUs have no bfloat16."""
    dtype = given.text("--dtype")
    chosen: str | None = None
    if dtype in (None, "auto"):
        dtype = facts.dtype if facts.dtype in ("float16", "bfloat16") else "bfloat16"
        if dtype == "bfloat16" and hardware.capability and hardware.capability < BFLOAT16_CAPABILITY:
            dtype = chosen = "float32" if facts.model_type in NOT_FLOAT16 else "half"
    value_bytes = BYTES.get(dtype or "", 2)
    cache = given.text("--kv-cache-dtype") or "auto"
    return Numerics(chosen, value_bytes, 1 if cache.startswith("fp8") else BYTES.get(cache, value_bytes))


def weights_in_memory(facts: Facts, numbers: Numerics, online: bool) -> int:
    """Bytes of the weights once they are loaded, converted, and (`online`) compressed."""
    if not facts.bytes_per_weight:
        return facts.weight_bytes
    loaded = facts.weight_bytes * numbers.value_bytes // facts.bytes_per_weight
    kept = min(facts.embedding_values * numbers.value_bytes, loaded)
    return kept + (loaded - kept) // numbers.value_bytes if online else loaded


def utilization(memory: int, given: Given) -> float:
    """Part of a GPU's memory for vLLM: its default, less on small GPUs, or what the user says."""
    return given.number("--gpu-memory-utilization") or min(UTILIZATION, int(100 * (memory - OUTSIDE) / memory) / 100)


def on_gpus(facts: Facts, hardware: Hardware, given: Given, online: bool) -> list[Fit]:
    """Every way to spread the model over this machine's GPUs that vLLM accepts, from few GPUs to many."""
    stages = int(given.number("--pipeline-parallel-size") or 1)
    asked = int(given.number("--tensor-parallel-size") or 0)
    most = len(hardware.gpus) // stages
    counts = [asked] if asked else range(1, most + 1)
    total = int(hardware.gpu_memory_gib * GIB)
    return [
        _fit(facts, count, stages, int(utilization(total, given) * total), hardware, given, online)
        for count in counts
        if count <= most and divides(facts, count, given)
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


def _fit(facts: Facts, gpus: int, stages: int, memory: int, hardware: Hardware, given: Given, online: bool) -> Fit:
    numbers = numerics(facts, hardware, given)
    offloaded = int((given.number("--cpu-offload-gb") or 0) * GIB)
    weights = max(weights_in_memory(facts, numbers, online) // (gpus * stages) - offloaded, 0)
    reserve = RESERVE + (RESERVE_SPREAD if gpus * stages > 1 else 0)
    if facts.vision and not given.has("--language-model-only"):
        reserve += RESERVE_VISION
    fit = Fit(gpus, stages, memory, weights, reserve, None)
    return Fit(gpus, stages, memory, weights, reserve, context(facts, numbers, fit.free, gpus, stages))


def on_cpu(facts: Facts, hardware: Hardware, given: Given, online: bool) -> Fit:
    """The model in this machine's own memory."""
    numbers = numerics(facts, hardware, given)
    total = int(hardware.ram_gib * GIB)
    memory = max(min(total - CPU_OTHERS, int(CPU_SHARE * total)), 0)
    weights = weights_in_memory(facts, numbers, online)
    # No more than vLLM is to have: what is free beyond stays free.
    memory = min(memory, weights + cpu_kv_cache_bytes(weights))
    fit = Fit(1, 1, memory, weights, 0, None)
    return Fit(1, 1, memory, weights, 0, context(facts, numbers, fit.free, 1))


def cache_bytes(facts: Facts, numbers: Numerics, tokens: int, gpus: int, stages: int = 1) -> int:
    """Memory of one conversation of that length, on each GPU."""
    values = sum(cache.numbers(tokens, gpus) for cache in facts.caches or ())
    return (values * numbers.cache_bytes + facts.state_values * 4 // gpus) // stages


def context(facts: Facts, numbers: Numerics, free: int, gpus: int, stages: int = 1) -> int | None:
    """Longest context that fits into the free memory, at most the model's own; None when it cannot be told."""
    if facts.caches is None or not facts.weight_bytes:
        return None
    least, most = 0, facts.max_context or MOST_CONTEXT
    while least < most:
        middle = (least + most + 1) // 2
        if cache_bytes(facts, numbers, middle, gpus, stages) <= free:
            least = middle
        else:
            most = middle - 1
    return least
