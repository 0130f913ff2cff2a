"""The decision in words: sentences, rows of a table, and what to do when a model does not fit."""

from __future__ import annotations

from collections.abc import Iterable

from aisandbox.instance.deployment import Asked, Hardware
from aisandbox.instance.fit.hardware import GIB
from aisandbox.instance.fit.sizing.facts import Facts
from aisandbox.instance.fit.sizing.fit import Fit
from aisandbox.instance.fit.sizing.numerics import Numerics
from aisandbox.instance.fit.sizing.quantization import NATIVE_CAPABILITY
from aisandbox.instance.problem import CONFIGURE
from aisandbox.manifest import Manifest, Model


def gigabytes(size: float) -> str:
    """A size as publishers and providers give it: in units of 10^9 bytes, or of 10^6 when it is small."""
    if size < 1e8:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 99.95e9 else f"{size / 1e9:.0f} GB"


def weights(facts: Facts, loaded: int, online: bool) -> str:
    """How large the weights are, and why."""
    if not facts.weight_bytes:
        return "weights of unknown size"
    each = facts.bytes_per_weight
    if not each:
        method = facts.quantization.method if facts.quantization else "unknown"
        return f"{gigabytes(facts.weight_bytes)} of weights ({method})"
    parameters = f"{_count(facts.weight_bytes / each)} parameters x {each} bytes = {gigabytes(facts.weight_bytes)}"
    if online:
        return f"{parameters}, compressed to {gigabytes(loaded)} while loading"
    return parameters if loaded == facts.weight_bytes else f"{parameters}, {gigabytes(loaded)} as computed here"


def _count(number: float) -> str:
    return f"{number / 1e9:.1f} B" if number >= 1e8 else f"{number / 1e6:.1f} M"


def place(hardware: Hardware, fit: Fit | None) -> str:
    """The machine's memory that the model lies in, such as "2 of 4 NVIDIA L4 (23.7 GB each)"."""
    if hardware.flavour == "cpu":
        return f"the memory of this instance ({gigabytes(hardware.ram_gib * GIB)})"
    names = list(dict.fromkeys(gpu.name for gpu in hardware.gpus))
    name, size = " and ".join(names), gigabytes(hardware.gpu_memory_gib * GIB)
    count, used = len(hardware.gpus), fit.gpus * fit.stages if fit else len(hardware.gpus)
    if count == 1:
        return f"one {name} ({size})"
    return f"{used if used == count else f'{used} of {count}'} {name} ({size} each)"


def context(facts: Facts, tokens: int | None, asked: int | None) -> str:
    """How much context there is room for."""
    if tokens is None:
        return "a context that vLLM fits to the memory it finds"
    if asked and asked <= tokens:
        return f"the {asked:,} tokens of context that were asked for"
    if facts.max_context and tokens >= facts.max_context:
        return f"its whole context of {tokens:,} tokens"
    about = f"about {_about(tokens):,} tokens of context"
    return about if facts.max_context else f"room for {about}"


def _about(tokens: int) -> int:
    """An estimate, rounded down: vLLM measures."""
    return tokens - tokens % (1000 if tokens >= 10_000 else 100)


def rows(
    facts: Facts,
    hardware: Hardware,
    fit: Fit,
    numbers: Numerics,
    loaded: int,
    online: bool,
    asked: Asked,
    parsers: str,
) -> Iterable[tuple[str, str]]:
    """The decision as a table."""
    kind = ", ".join(facts.architectures) or "unknown"
    yield "Architecture", f"{kind} ({facts.model_type})" if facts.model_type else kind
    yield "Weights", weights(facts, loaded, online)
    yield "Memory", place(hardware, fit)
    each = " of each" if fit.gpus * fit.stages > 1 else ""
    parts = [f"{gigabytes(fit.weights)} weights", f"{gigabytes(fit.free)} cache"]
    if fit.reserve:
        parts.insert(1, f"{gigabytes(fit.reserve)} to compute in")
    yield "Use" + each, f"{gigabytes(fit.memory)} for vLLM: {', '.join(parts)}"
    idle = len(hardware.gpus) - fit.gpus * fit.stages
    if idle > 0:
        more = f"{CONFIGURE} --set vllm_args='--tensor-parallel-size {len(hardware.gpus)}'"
        yield "Idle", f"{idle} GPUs, since the model fits without them; all of them may be faster: {more}"
    if numbers.dtype:
        what = "GPU" if hardware.gpus else "processor"
        yield "Computes in", f"{numbers.dtype}: this {what} has no bfloat16"
    native = NATIVE_CAPABILITY.get(facts.quantization.method) if facts.quantization else None
    if native and hardware.capability and hardware.capability < native:
        yield "Speed", "this GPU unpacks such weights on the fly, which saves memory and no time"
    if facts.quantization and asked.quantization:
        yield (
            "Compression",
            f"published as {facts.quantization.method}, so quantization={asked.quantization} is ignored",
        )
    longest = f"; made for {facts.max_context:,}" if facts.max_context else ""
    wish = f"; asked for {asked.max_model_len:,}" if asked.max_model_len else ""
    yield "Context", context(facts, fit.context, None) + longest + wish
    if hardware.flavour == "cuda":
        yield "At once", _at_once(fit)
    yield "Parsers", parsers


def _at_once(fit: Fit) -> str:
    tokens = fit.capacity(fit.context) if fit.context else None
    share = f", whose contexts share about {_about(tokens):,} tokens" if tokens else ""
    return f"up to {fit.batch.conversations:,} conversations{share}; further requests wait"


def nearest(manifest: Manifest, hardware: Hardware, refused: str) -> Model:
    """The listed model that is nearest in size to one that was too large: the largest that fits."""
    fitting = manifest.fitting(hardware.gpu_memory_gib, len(hardware.gpus), hardware.capability)
    others = [model for model in fitting if model.id.lower() != refused.lower()] or [manifest.embedded_model]
    return max(others, key=lambda model: model.gpu_memory_gib)


def instead(manifest: Manifest, hardware: Hardware, refused: str) -> str:
    """The command that takes a model that fits."""
    return f"{CONFIGURE} --model {nearest(manifest, hardware, refused).id}"
