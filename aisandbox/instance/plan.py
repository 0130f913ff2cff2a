"""From the choice and the machine to what is served: the model, its name, and vLLM's arguments."""

from __future__ import annotations

import shlex

from aisandbox.instance.access import Access
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.fit.hardware import Hardware
from aisandbox.instance.guard import access
from aisandbox.instance.problem import Problem
from aisandbox.manifest import Manifest, Model, Parser, Part

CONFIGURE = "sudo aisandbox configure"


class Asked(Part):
    """What the user asked of vLLM; None leaves it to the appliance."""

    max_model_len: int | None = None
    quantization: str | None = None
    vllm_args: tuple[str, ...] = ()


class Serving(Part):
    """One model as the engine is to serve it."""

    model: str
    revision: str
    served_names: tuple[str, ...]
    args: tuple[str, ...]
    """vLLM's arguments, besides its model, names and address; a downloaded model's come from its sizing."""
    embedded: bool
    """Whether the model came with the image, so that nothing is downloaded."""
    tasks: bool
    """Whether the model is good enough for the chat page's background tasks."""


class Plan(Serving):
    """What `aisandbox configure` decided. It holds no secrets."""

    fallback: Serving
    """Served when the model cannot be had."""
    hardware: Hardware
    """What the model is sized for, before it is downloaded."""
    asked: Asked = Asked()
    servable: bool
    """Whether this machine can run vLLM at all."""
    hub_endpoint: str | None
    """Another hub than the default one."""
    access: Access = Access()
    """Who may reach what."""
    problems: tuple[Problem, ...]


def decide(choice: Choice, found: tuple[Problem, ...], manifest: Manifest, hardware: Hardware) -> Plan:
    """Plan for a checked choice. Never fails: what cannot be done is a problem, and defaults take over."""
    problems = list(found)
    servable = hardware.flavour == "cpu" or (bool(hardware.gpus) and not hardware.fault)
    if not servable:
        problems.append(no_gpu(hardware))
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
    serving = _serving(choice, manifest, hardware)
    asked = Asked(
        max_model_len=choice.max_model_len,
        quantization=choice.quantization,
        vllm_args=tuple(shlex.split(choice.vllm_args or "")),
    )
    if serving.embedded and choice.max_model_len:
        problems.append(
            Problem(
                option="max_model_len",
                value=str(choice.max_model_len),
                reason=f"{embedded.id} has a fixed context length, so it is ignored",
                fix=f"Choose a model: {CONFIGURE} --model ORGANISATION/NAME",
            )
        )
    return Plan(
        **dict(serving),
        fallback=_serving(Choice(model=embedded.id), manifest, hardware),
        # A condition of this moment would be out of date in the plan; the doctor looks again.
        hardware=hardware.model_copy(update={"conditions": ()}),
        asked=asked,
        servable=servable,
        hub_endpoint=choice.hub_endpoint,
        access=access.of(choice),
        problems=tuple(problems),
    )


def _serving(choice: Choice, manifest: Manifest, hardware: Hardware) -> Serving:
    listed = manifest.model(choice.model) if choice.model else _default(manifest, hardware)
    model = listed.id if listed else choice.model or manifest.embedded_model.id
    embedded = bool(listed and listed.embedded)
    return Serving(
        model=model,
        revision=choice.revision or (listed and listed.revision) or "main",
        served_names=(choice.served_name or model,),
        args=tuple(_embedded_arguments(manifest, choice)) if embedded else (),
        embedded=embedded,
        tasks=listed.tasks if listed else True,
    )


def _default(manifest: Manifest, hardware: Hardware) -> Model:
    """The best listed model for the GPUs found."""
    return manifest.fitting(hardware.gpu_memory_gib, len(hardware.gpus), hardware.capability)[0]


def _embedded_arguments(manifest: Manifest, choice: Choice) -> list[str]:
    # So small a model would rather fill an answer with the blank lines that JSON allows than end it.
    structured = ["--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}']
    parsers = parser_arguments(manifest.parser(manifest.embedded_model.id))
    return [*structured, *parsers, *shlex.split(choice.vllm_args or "")]


def parser_arguments(parser: Parser | None) -> list[str]:
    """vLLM's arguments for a family's tool calls and thinking."""
    arguments = []
    if parser and parser.tool:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", parser.tool]
    if parser and parser.reasoning:
        arguments += ["--reasoning-parser", parser.reasoning]
    return arguments


def no_gpu(hardware: Hardware) -> Problem:
    """What to tell of a CUDA flavour that has no GPU to use."""
    return Problem(
        reason=f"no NVIDIA GPU can be used, and this image needs one ({hardware.fault or 'none was found'})",
        fix=hardware.fix or "Deploy the image on a GPU plan, or deploy its CPU flavour.",
    )
