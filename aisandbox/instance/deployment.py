"""The one document of a deployment, which grows from step to step: asked, resolved, sized, located.

| state | written by | adds |
|---|---|---|
| asked, resolved | `choose.resolve`, for configure, in `Places.resolved` | what was asked for, the machine, the model |
| sized | `fit.sizing` | vLLM's arguments, and those for less memory |
| located | `fit.model`, for the model step, in `Places.located` | the folders: what the engine serves, best first |

Each file has one owner. The engine goes on serving the located document while another one is on its way.
Standard library only: the engine reads it before it imports anything else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, cast

from aisandbox.instance import files, records
from aisandbox.instance.access import Access
from aisandbox.instance.problem import Problem
from aisandbox.instance.records import RecordError

RESOLVED, LOCATED = "resolved.json", "located.json"
"""The files of the document below /run."""
FORM = 1
"""Of the document in its file. One in another form is another release's, and counts as none."""


class DocumentError(Exception):
    """The document is there but unusable; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user asked of vLLM; None leaves it to the appliance."""

    max_model_len: int | None = None
    quantization: str | None = None
    vllm_args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU that can be used, or one MIG slice of it."""

    name: str
    memory_gib: float
    """What the model server can have: without what the driver keeps for itself, and what other programs have taken."""
    capability: tuple[int, int] | None = None
    """CUDA's compute capability, (8, 9) for 8.9; None when the driver does not tell."""
    uuid: str | None = None
    """CUDA's name for it, such as GPU-… or MIG-…; None when the driver does not tell."""
    taken_gib: float = 0
    """Memory that other programs have taken."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine below the model server."""

    flavour: Literal["cpu", "cuda"]
    """Build of vLLM in the image."""
    ram_gib: float = 0
    cpus: int = 0
    bfloat16: bool = True
    """Whether the processor itself computes in it; it matters where there is no GPU."""
    gpus: tuple[Gpu, ...] = ()
    """GPUs that the model server uses. They are all of one kind."""
    devices: tuple[str, ...] = ()
    """Their UUIDs, where the machine has others as well; empty when it has no others."""
    driver: str | None = None
    """Version of NVIDIA's driver."""
    cuda: str | None = None
    """Newest CUDA that this driver serves, such as 13.0."""
    fault: str | None = None
    """Why no GPU can be used."""
    fix: str | None = None
    """What ends the fault."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the GPUs and lasts, but does not stop the others from serving."""
    conditions: tuple[Problem, ...] = ()
    """What is wrong at this moment and may be over in the next one, such as heat."""

    @property
    def gpu_memory_gib(self) -> float:
        """Memory of one GPU (of the smallest), in GiB; 0 without a GPU."""
        return min((gpu.memory_gib for gpu in self.gpus), default=0)

    @property
    def capability(self) -> tuple[int, int] | None:
        """Compute capability of the oldest GPU."""
        return min((gpu.capability for gpu in self.gpus if gpu.capability), default=None)

    @property
    def free_share(self) -> float:
        """Part of a GPU's memory that other programs leave, of the GPU with least; 1 when they have taken none."""
        shares = (gpu.memory_gib / (gpu.memory_gib + gpu.taken_gib) for gpu in self.gpus if gpu.taken_gib)
        return min(shares, default=1.0)

    @property
    def no_gpu(self) -> Problem | None:
        """Why this machine cannot run vLLM at all: a CUDA flavour that has no GPU to use."""
        if self.flavour == "cpu" or (self.gpus and not self.fault):
            return None
        return Problem(
            reason=f"no NVIDIA GPU can be used, and this image needs one ({self.fault or 'none was found'})",
            fix=self.fix or "Deploy the image on a GPU plan, or deploy its CPU flavour.",
        )


@dataclass(frozen=True, kw_only=True)
class Serving:
    """One model, and how it is served."""

    model: str
    """Its id at the hub: ORGANISATION/NAME."""
    revision: str = "main"
    served_names: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    """vLLM's arguments, besides its model, names and address. Those of a downloaded model come from its sizing."""
    embedded: bool = False
    """Whether the model came with the image, so that nothing is downloaded."""
    folder: str = ""
    """Where its files lie; empty until it is located."""
    processor: bool = False
    """Whether Transformers serve it from the processor, since no GPU can be used."""
    fix: str = ""
    """Of the same model with less: what the user can choose so that it is as asked for."""

    @cached_property
    def id(self) -> str:
        """Identifies it in the engine's status and in the memory of failures."""
        facts = (self.folder, self.served_names, self.args, *(["processor"] if self.processor else []))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def answering_to(self, names: tuple[str, ...]) -> Serving:
        """The same under these names as well. Its own come first, so that answers name it."""
        return replace(self, served_names=tuple(dict.fromkeys((*self.served_names, *names))))


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What is served on this instance, and on what. It holds no secrets."""

    serving: Serving
    """The model that was chosen."""
    guide: Serving
    """The embedded model, for when that one cannot be served."""
    hardware: Hardware
    """What the model is sized for, before it is downloaded."""
    asked: Asked = Asked()
    tasks: bool = True
    """Whether the model is good enough for the chat page's background tasks."""
    hub_endpoint: str | None = None
    """Another hub than the default one."""
    access: Access = Access()
    """Who may reach what."""
    problems: tuple[Problem, ...] = ()
    candidates: tuple[Serving, ...] = ()
    """What the engine serves: the first that can be served. Empty until it is located."""

    @property
    def model(self) -> str:
        """The model that was chosen, by its id at the hub."""
        return self.serving.model

    @cached_property
    def attempts(self) -> tuple[Serving, ...]:
        """The candidates; each answers to the chosen names as well, so that clients that were set to them go on."""
        return tuple(candidate.answering_to(self.serving.served_names) for candidate in self.candidates)

    @property
    def served(self) -> tuple[object, ...]:
        """All of it that the engine goes by."""
        return self.attempts, self.hardware.devices

    @property
    def digest(self) -> str:
        """Identifies what the engine serves. Other fallbacks alone are no reason to restart a model that serves."""
        first, devices = self.attempts[0].id, self.hardware.devices
        return hashlib.sha256(json.dumps((first, devices)).encode()).hexdigest() if devices else first

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        """The document in this content; None when another release wrote it.

        Raises:
            DocumentError: it is unusable.
        """
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"not JSON: {error}") from error
        if not isinstance(data, dict):
            raise DocumentError("not an object")
        if data.pop("form", None) != FORM:
            return None
        try:
            return cast(Self, records.decode(cls, data))
        except RecordError as error:
            raise DocumentError(str(error)) from error

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The document in this file; None when there is none, or another release's.

        Raises:
            DocumentError: it is unusable.
        """
        try:
            return cls.parse(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DocumentError(f"cannot be read: {error.strerror}") from error

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """Like `load`, for whoever can do without: None also for a document that is unusable."""
        try:
            return cls.load(path)
        except DocumentError:
            return None

    def save(self, path: Path) -> bool:
        """Write the document. Returns whether anything changed."""
        return files.write_json(path, {"form": FORM, **asdict(self)})
