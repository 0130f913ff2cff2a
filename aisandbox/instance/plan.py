"""From the choice and the machine to what is served: the model, its name, and vLLM's arguments."""

from __future__ import annotations

from aisandbox.instance import access
from aisandbox.instance.access import Access
from aisandbox.instance.hardware import Hardware
from aisandbox.instance.notices import Problem
from aisandbox.instance.options import Choice
from aisandbox.manifest import Manifest, Model, Part

CONFIGURE = "sudo aisandbox configure"


class Serving(Part):
    """One model as the engine is to serve it."""

    model: str
    revision: str
    served_names: tuple[str, ...]
    args: tuple[str, ...]
    """vLLM's arguments, besides its model, names and address."""
    embedded: bool
    """Whether the model came with the image, so that nothing is downloaded."""
    tasks: bool
    """Whether the model is good enough for the chat page's background tasks."""


class Plan(Serving):
    """What `aisandbox configure` decided. It holds no secrets."""

    fallback: Serving
    """Served when the model cannot be had."""
    servable: bool
    """Whether this machine can run the engine at all."""
    hub_endpoint: str | None
    """Another hub than the default one."""
    access: Access = Access()
    """Who may reach what."""
    problems: tuple[Problem, ...]


def decide(choice: Choice, found: tuple[Problem, ...], manifest: Manifest, hardware: Hardware) -> Plan:
    """Plan for a checked choice. Never fails: what cannot be done is a problem, and defaults take over."""
    problems = list(found)
    servable = hardware.flavour == "cpu" or bool(hardware.gpus)
    if not servable:
        problems.append(_no_gpu(hardware))
    refusal = _refusal(choice, manifest, hardware)
    if refusal:
        problems.append(refusal)
        choice = choice.model_copy(update={"model": None, "revision": None})
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
        servable=servable,
        hub_endpoint=choice.hub_endpoint,
        access=access.of(choice),
        problems=tuple(problems),
    )


def _serving(choice: Choice, manifest: Manifest, hardware: Hardware) -> Serving:
    listed = manifest.model(choice.model) if choice.model else manifest.default_model(hardware.gpu_memory_gib)
    model = listed.id if listed else choice.model or manifest.embedded_model.id
    embedded = bool(listed and listed.embedded)
    return Serving(
        model=model,
        revision=choice.revision or (listed and listed.revision) or "main",
        served_names=(choice.served_name or model,),
        args=tuple(_arguments(model, embedded, choice, manifest, hardware)),
        embedded=embedded,
        tasks=listed.tasks if listed else True,
    )


def _arguments(model: str, embedded: bool, choice: Choice, manifest: Manifest, hardware: Hardware) -> list[str]:
    arguments = []
    if embedded:
        # So small a model would rather fill an answer with the blank lines that JSON allows than end it.
        arguments += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    else:
        # `auto` lets vLLM take the longest context that fits into the memory it finds.
        arguments += ["--max-model-len", str(choice.max_model_len or "auto")]
    parser = manifest.parser(model)
    if parser and parser.tool:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", parser.tool]
    if parser and parser.reasoning:
        arguments += ["--reasoning-parser", parser.reasoning]
    if not embedded and len(hardware.gpus) > 1:
        arguments += ["--tensor-parallel-size", str(_tensor_parallel(hardware))]
    return arguments


def _tensor_parallel(hardware: Hardware) -> int:
    """GPUs that share the model: a power of two, because their number must divide its attention heads."""
    return 1 << (len(hardware.gpus).bit_length() - 1) if hardware.gpus else 0


def _refusal(choice: Choice, manifest: Manifest, hardware: Hardware) -> Problem | None:
    """Why the chosen model cannot be served here, when that is known without asking the hub."""
    listed: Model | None = manifest.model(choice.model) if choice.model else None
    memory = hardware.gpu_memory_gib * _tensor_parallel(hardware)
    if not listed or not hardware.gpus or listed.gpu_memory_gib <= memory:
        return None
    instead = manifest.default_model(hardware.gpu_memory_gib).id
    return Problem(
        option="model",
        value=listed.id,
        reason=f"needs {listed.gpu_memory_gib} GiB of GPU memory, and this instance has {memory:.0f} GiB",
        fix=f"Take a plan with a larger GPU, or a model that fits: {CONFIGURE} --model {instead}",
    )


def _no_gpu(hardware: Hardware) -> Problem:
    return Problem(
        reason=f"no NVIDIA GPU can be used, and this image needs one ({hardware.fault or 'none was found'})",
        fix="Deploy the image on a GPU plan, or deploy its CPU flavour. With a GPU, see: sudo nvidia-smi",
    )
