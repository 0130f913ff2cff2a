"""From the choice and the machine to the deployment: which model is served, under which name and revision."""

from __future__ import annotations

import shlex
from dataclasses import replace

from aisandbox.instance.choose import access
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.deployment import Asked, Deployment, Hardware, Serving
from aisandbox.instance.fit.parsers import parser_arguments
from aisandbox.instance.problem import CONFIGURE, Problem
from aisandbox.manifest import Manifest, Model


def resolve(choice: Choice, found: tuple[Problem, ...], manifest: Manifest, hardware: Hardware) -> Deployment:
    """Deployment for a checked choice. Never fails: what cannot be done is a problem, and defaults take over."""
    problems = list(found)
    if hardware.no_gpu:
        problems.append(hardware.no_gpu)
    if choice.revision and not choice.model:
        problems.append(
            Problem(
                option="revision",
                value=choice.revision,
                reason="a revision says nothing without its model, so it is ignored",
                fix=f"Choose both: {CONFIGURE} --model ORGANISATION/NAME --set revision={choice.revision}",
            )
        )
        choice = choice.model_copy(update={"revision": None})
    embedded = manifest.embedded_model
    listed = manifest.model(choice.model) if choice.model else _default(manifest, hardware)
    serving = _serving(choice, listed, manifest, hardware)
    if serving.embedded and choice.max_model_len:
        problems.append(
            Problem(
                option="max_model_len",
                value=str(choice.max_model_len),
                reason=f"{embedded.id} has a fixed context length, so it is ignored",
                fix=f"Choose a model: {CONFIGURE} --model ORGANISATION/NAME",
            )
        )
    return Deployment(
        serving=serving,
        guide=_serving(Choice(model=embedded.id), embedded, manifest, hardware),
        # A condition of this moment would be out of date in the document; the doctor looks again.
        hardware=replace(hardware, conditions=()),
        asked=Asked(
            max_model_len=choice.max_model_len,
            quantization=choice.quantization,
            vllm_args=tuple(shlex.split(choice.vllm_args or "")),
        ),
        tasks=listed.tasks if listed else True,
        hub_endpoint=choice.hub_endpoint,
        access=access.of(choice),
        problems=tuple(problems),
    )


def _serving(choice: Choice, listed: Model | None, manifest: Manifest, hardware: Hardware) -> Serving:
    model = listed.id if listed else choice.model or manifest.embedded_model.id
    embedded = bool(listed and listed.embedded)
    return Serving(
        model=model,
        revision=choice.revision or (listed and listed.revision) or "main",
        served_names=(choice.served_name or model,),
        args=tuple(_embedded_arguments(manifest, choice, hardware)) if embedded else (),
        embedded=embedded,
    )


def _default(manifest: Manifest, hardware: Hardware) -> Model:
    """The best listed model for the GPUs found."""
    return manifest.fitting(hardware.gpu_memory_gib, len(hardware.gpus), hardware.capability)[0]


def _embedded_arguments(manifest: Manifest, choice: Choice, hardware: Hardware) -> list[str]:
    # So small a model would rather fill an answer with the blank lines that JSON allows than end it.
    structured = ["--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}']
    parsers = parser_arguments(manifest.parser(manifest.embedded_model.id))
    # As with other small models (fit/sizing/numerics.py).
    computed = ["--dtype", "float32"] if hardware.flavour == "cpu" and not hardware.bfloat16 else []
    return [*structured, *parsers, *computed, *shlex.split(choice.vllm_args or "")]
