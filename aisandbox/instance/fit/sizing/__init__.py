"""Whether and how a model runs on this machine, decided from its small files before any weight is downloaded.

The model step asks once, between look-up and download:

    config = sizing.parse(data)                      # bytes of config.json (at most MAX_CONFIG_BYTES were read)
    sized = sizing.size(deployment, config, weight_files, manifest, sizing.architectures(places))
    sized.serving                                    # the model with all of vLLM's arguments
    sized.less                                       # the same with less memory, if there is a way
    status/model.json: sizing = sized.facts()        # {"sentence": ..., "rows": [[label, value], ...]}

What vLLM measures is left to vLLM (`--max-model-len auto` fits the context to the memory that it finds); the estimate
here decides what cannot wait for that: whether to download at all, and over how many GPUs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aisandbox.instance.deployment import Deployment, Hardware, Serving
from aisandbox.instance.errors import UnobtainableError
from aisandbox.instance.fetch.request import MAX_CONFIG_BYTES
from aisandbox.instance.fit.hardware import GIB
from aisandbox.instance.fit.parsers import parser_arguments
from aisandbox.instance.fit.sizing import batch, check, explain, fit, quantization, reserve, weights
from aisandbox.instance.fit.sizing.config import parse
from aisandbox.instance.fit.sizing.facts import Facts, read
from aisandbox.instance.fit.sizing.fit import Fit
from aisandbox.instance.fit.sizing.given import Given
from aisandbox.instance.fit.sizing.numerics import numerics
from aisandbox.instance.places import Places
from aisandbox.instance.problem import CONFIGURE
from aisandbox.instance.serve import fallbacks
from aisandbox.instance.serve.fallbacks import CONTEXT
from aisandbox.manifest import Manifest

__all__ = ["MAX_CONFIG_BYTES", "Sized", "UnobtainableError", "architectures", "formats", "parse", "size"]


@dataclass(frozen=True)
class Sized:
    """How the model is served."""

    serving: Serving
    """With all of vLLM's arguments, the user's own included."""
    sentence: str
    """The decision in one sentence, for the log and the status message."""
    rows: tuple[tuple[str, str], ...]
    """The decision as a table of label and value."""
    less: Serving | None = None
    """The last resort, for when memory does not suffice at start: less context, fewer conversations, no CUDA graphs.

    Before it, the engine tries once with what vLLM's own error tells. None: there is no less.
    """
    fit: Fit | None = None
    """How the model is expected to lie in memory; None for a model that came with the image."""

    @property
    def args(self) -> tuple[str, ...]:
        """All of vLLM's arguments."""
        return self.serving.args

    def at(self, folder: Path) -> Sized:
        """The same, with the model's files in that folder."""
        less = replace(self.less, folder=str(folder)) if self.less else None
        return replace(self, serving=replace(self.serving, folder=str(folder)), less=less)

    def facts(self) -> dict[str, Any]:
        """What stands in the model's status as `sizing`."""
        return {"sentence": self.sentence, "rows": [list(row) for row in self.rows]}


def architectures(places: Places) -> frozenset[str] | None:
    """Architectures that the image's vLLM can serve, as its bake wrote them down; None when it did not."""
    try:
        return frozenset(json.loads((places.opt / "cache" / "vllm" / "architectures.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def formats(places: Places) -> dict[str, tuple[int, int]] | None:
    """Formats of compressed weights that the image's vLLM knows, with the oldest compute capability for each.

    None when its bake did not write them down.
    """
    try:
        told = json.loads((places.opt / "cache" / "vllm" / "formats.json").read_bytes())
        return {method: (least // 10, least % 10) for method, least in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def size(
    deployment: Deployment,
    config: Mapping[str, Any],
    weight_files: Mapping[str, int],
    manifest: Manifest,
    supported: Collection[str] | None = None,
    quant_config: Mapping[str, Any] | None = None,
    known_formats: Mapping[str, tuple[int, int]] | None = None,
) -> Sized:
    """Decide how the chosen model is served on the deployment's hardware.

    Args:
        deployment: its `hardware` and what the user asked for.
        config: the model's `config.json`, untrusted.
        weight_files: bytes of each weight file that would be downloaded.
        supported: architectures of the image's vLLM; None skips the check.
        quant_config: the model's `hf_quant_config.json`, if it has one, untrusted.
        known_formats: formats of compressed weights that the image's vLLM knows; None skips the check.

    Raises:
        UnobtainableError: it cannot run here; the message says why with figures, the fix names a model that can.
    """
    facts = read(config, weight_files, quant_config)
    hardware, given = deployment.hardware, _given(deployment)
    numbers = numerics(facts, hardware, given)
    instead = explain.instead(manifest, hardware, deployment.model)
    check.architecture(deployment.model, facts, supported, given, instead)
    check.compression(deployment.model, facts, hardware, numbers, known_formats, instead)
    # Weights that are compressed already stay as they are: vLLM takes one or the other.
    online = quantization.ONLINE.get(deployment.asked.quantization or "") if not facts.quantization else None
    chosen = _fit(deployment, facts, given, bool(online), instead)
    asked = deployment.asked.max_model_len
    parser = manifest.parser(deployment.model, facts.model_type)

    base = deployment.serving
    args = [*base.args, *parser_arguments(parser)]
    if hardware.flavour == "cpu":
        args += ["--kv-cache-memory-bytes", str(chosen.free)]
    else:
        args += _gpu_arguments(facts, chosen, hardware, given)
    if numbers.dtype:
        args += ["--dtype", numbers.dtype]
    if online:
        args += ["--quantization", online]
    loaded = weights.in_memory(facts, numbers, bool(online))
    parsers = (
        ", ".join(filter(None, (parser.tool and f"tools {parser.tool}", parser.reasoning)))
        if parser
        else "none is known for this family: tool calls and thinking stay in the text"
    )
    room = explain.context(facts, chosen.context, asked)
    return Sized(
        serving=replace(base, args=(*args, CONTEXT, _length(facts, chosen, deployment), *deployment.asked.vllm_args)),
        sentence=f"{explain.weights(facts, loaded, bool(online))}, fits {explain.place(hardware, chosen)} with {room}.",
        rows=tuple(explain.rows(facts, hardware, chosen, numbers, loaded, bool(online), deployment.asked, parsers)),
        less=_less(deployment, replace(base, args=tuple(args)), facts, chosen),
        fit=chosen,
    )


def _given(deployment: Deployment, *more: str) -> Given:
    """What the user asks of vLLM, and more."""
    length = deployment.asked.max_model_len
    return Given([*deployment.asked.vllm_args, *([CONTEXT, str(length)] if length else []), *more])


def _fit(deployment: Deployment, facts: Facts, given: Given, online: bool, instead: str) -> Fit:
    """The way in which the model lies in this machine's memory.

    Raises:
        UnobtainableError: it does not fit in any way.
    """
    hardware = deployment.hardware
    ways = [fit.on_cpu(facts, hardware, given, online)] if hardware.flavour == "cpu" else []
    ways = ways or fit.on_gpus(facts, hardware, given, online)
    if not ways:
        raise UnobtainableError(
            f"{deployment.model} cannot be spread over the GPUs as asked: its {facts.heads} attention heads and this "
            f"instance's {len(hardware.gpus)} GPUs must be divisible by --tensor-parallel-size.",
            f"Leave it to the appliance: {CONFIGURE} --unset vllm_args",
        )
    wanted = min(deployment.asked.max_model_len or fit.COMFORTABLE_CONTEXT, facts.max_context or fit.MOST_CONTEXT)
    least = min(fit.LEAST_CONTEXT, wanted)
    fitting = [way for way in ways if way.holds(least)]
    if fitting:
        enough = [way for way in fitting if way.holds(wanted)] or fitting[-1:]
        # Fewer conversations at once are worth it where the whole context fits then.
        longest = wanted if deployment.asked.max_model_len else facts.max_context
        same = [way for way in enough if way.gpus == enough[0].gpus]
        return next((way for way in same if way.holds(longest)), enough[0])
    raise _too_large(deployment, facts, given, ways[-1], online, instead)


def _too_large(
    deployment: Deployment, facts: Facts, given: Given, way: Fit, online: bool, instead: str
) -> UnobtainableError:
    hardware = deployment.hardware
    loaded = weights.in_memory(facts, numerics(facts, hardware, given), online)
    spread = way.gpus * way.stages
    each = " on each GPU" if spread > 1 else ""
    least = min(fit.LEAST_CONTEXT, facts.max_context or fit.LEAST_CONTEXT)
    cache = way.pool.bytes(least) if way.pool else 0
    message = (
        f"{deployment.model} does not fit: {explain.weights(facts, loaded, online)}. It needs "
        f"{explain.gigabytes(way.weights + way.reserve + cache)}{each}, and "
        f"{explain.place(hardware, way)} can give it {explain.gigabytes(way.memory)}{each}."
    )
    helps = [f"Take a model that fits: {instead}"]
    if not online and facts.bytes_per_weight and _would_fit(deployment, facts, given, True):
        helps.append(f"Or compress it while loading: {CONFIGURE} --set quantization=fp8")
    text_only = _given(deployment, "--language-model-only")
    if facts.vision and _would_fit(deployment, facts, text_only, online):
        helps.append(f"Or leave out pictures: {CONFIGURE} --set vllm_args=--language-model-only")
    helps.append("Or take a plan with more memory.")
    return UnobtainableError(message, ". ".join(helps))


def _would_fit(deployment: Deployment, facts: Facts, given: Given, online: bool) -> bool:
    if deployment.hardware.flavour == "cpu":
        return False
    return any(way.holds() for way in fit.on_gpus(facts, deployment.hardware, given, online))


def _gpu_arguments(facts: Facts, chosen: Fit, hardware: Hardware, given: Given) -> list[str]:
    arguments = []
    if chosen.gpus > 1 and not given.has("--tensor-parallel-size"):
        arguments += ["--tensor-parallel-size", str(chosen.gpus)]
    part = fit.utilization(int(hardware.gpu_memory_gib * GIB), given)
    if part < fit.UTILIZATION and not given.has("--gpu-memory-utilization"):
        arguments += ["--gpu-memory-utilization", f"{part:g}"]
    usual = batch.default(facts, hardware, given)
    if not given.has("--max-num-seqs") and (facts.state or chosen.batch.conversations != usual.conversations):
        arguments += ["--max-num-seqs", str(chosen.batch.conversations)]
    if reserve.without_video(facts, given):
        arguments += reserve.NO_VIDEO
    return arguments


def _length(facts: Facts, chosen: Fit, deployment: Deployment) -> str:
    """Context for vLLM: what the user asked for within what the model was made for, if it is expected to fit.

    Else `auto`: vLLM takes what it finds to fit.
    """
    asked = deployment.asked.max_model_len
    if asked is None:
        return "auto"
    most = min(asked, facts.max_context or asked)
    too_long = deployment.hardware.flavour == "cuda" and chosen.context is not None and chosen.context < most
    return "auto" if too_long else str(most)


def _less(deployment: Deployment, base: Serving, facts: Facts, chosen: Fit) -> Serving | None:
    """The same model with a smaller context and, on GPUs, without what takes memory beside it."""
    asked = deployment.asked.max_model_len
    most = min(asked or fit.MOST_CONTEXT, facts.max_context or fit.MOST_CONTEXT)
    tokens = fallbacks.less_context(chosen.context, most, fit.LEAST_CONTEXT)
    if tokens is None:
        return None
    return fallbacks.with_less(base, tokens, deployment.asked.vllm_args, gpus=deployment.hardware.flavour == "cuda")
