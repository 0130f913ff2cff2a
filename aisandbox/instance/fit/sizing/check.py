"""Reasons to refuse a model before it is downloaded, other than its size."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aisandbox.instance.errors import UnobtainableError
from aisandbox.instance.fit.hardware import Hardware
from aisandbox.instance.fit.sizing.facts import Facts
from aisandbox.instance.fit.sizing.given import Given
from aisandbox.instance.fit.sizing.numerics import Numerics
from aisandbox.instance.problem import CONFIGURE

TRUST = "--trust-remote-code"


def architecture(model: str, facts: Facts, supported: Collection[str] | None, given: Given, instead: str) -> None:
    """Refuse a model that this image's vLLM cannot run.

    Raises:
        UnobtainableError: it cannot.
    """
    if supported is None or not facts.architectures or any(name in supported for name in facts.architectures):
        return
    name = facts.architectures[0]
    if not facts.remote_code:
        raise UnobtainableError(
            f"{model} cannot be served: the vLLM of this image does not know its architecture, {name}.",
            f"Choose another model: {instead}",
        )
    if not given.has(TRUST):
        raise UnobtainableError(
            f"{model} brings program code of its own ({name}), which runs on this instance with the model's rights. "
            "It is never run unless you say so.",
            f"If you trust its publisher: {CONFIGURE} --set vllm_args={TRUST}. Otherwise: {instead}",
        )


def compression(
    model: str,
    facts: Facts,
    hardware: Hardware,
    numbers: Numerics,
    formats: Mapping[str, tuple[int, int]] | None,
    instead: str,
) -> None:
    """Refuse weights in a format that vLLM, or the GPU, cannot use.

    Args:
        formats: vLLM's formats with the oldest compute capability for each; None leaves it to vLLM.

    Raises:
        UnobtainableError: they cannot be used.
    """
    found = facts.quantization
    if not found:
        return
    choose = f"Choose another model: {instead}"
    if not found.method or (formats is not None and found.method not in formats):
        method = found.method or "that of another program"
        raise UnobtainableError(
            f"{model} cannot be served: the vLLM of this image does not know its weights' format, {method}.",
            f"{choose}. Many models are also published as FP8, AWQ or GPTQ.",
        )
    least, has = (formats or {}).get(found.method), hardware.capability
    if least and has and has < least:
        raise UnobtainableError(
            f"{model} cannot be served: weights in {found.method} need a GPU of compute capability "
            f"{version(least)}, and {hardware.gpus[0].name} has {version(has)}.",
            choose,
        )
    if numbers.dtype == "float32":
        raise UnobtainableError(
            f"{model} cannot be served: it needs bfloat16 for weights in {found.method}, "
            f"which {hardware.gpus[0].name} does not have.",
            choose,
        )


def version(capability: tuple[int, int]) -> str:
    """8.9 for (8, 9)."""
    return ".".join(map(str, capability))
