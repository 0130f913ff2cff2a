"""The only Python reader of `marketplace.yaml`, the product's one source of truth."""

from __future__ import annotations

from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

REPOSITORY = Path(__file__).resolve().parent.parent
"""Folder of this package: the checkout, or `/opt/aisandbox/lib` on the appliance."""


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
    type: Literal["string", "integer", "secret", "choice", "cidrs", "arguments"]
    """`cidrs`: networks, separated by commas. `arguments`: a command line from vLLM's allowed arguments."""
    help: str
    choices: tuple[str, ...] = ()
    default: str | int | None = None
    pattern: str | None = None
    minimum: int | None = None
    maximum: int | None = None
    example: str | int | None = None

    def schema_(self) -> dict[str, Any]:
        """JSON Schema of the option's value."""
        rules = {
            "type": "integer" if self.type == "integer" else "string",
            "enum": list(self.choices) or None,
            "pattern": self.pattern,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "description": self.help,
        }
        return {rule: value for rule, value in rules.items() if value is not None}


class Model(Part):
    """A listed model. `gpu_memory_gib` is the GPU memory it needs, in GiB; 0 runs without a GPU."""

    id: str
    license: str
    gpu_memory_gib: int = Field(ge=0)
    revision: str | None = None
    embedded: bool = False
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    tasks: bool = True
    """Whether the model is good enough for the chat page's background tasks (titles)."""


class Parser(Part):
    """vLLM's tool and reasoning parser for models whose name matches, case-insensitively."""

    match: str
    tool: str | None = None
    reasoning: str | None = None


class Manifest(Part):
    schema_: Literal[1] = Field(alias="schema")
    product: Product
    os: OperatingSystem
    ports: dict[str, Port]
    paths: Paths
    options: tuple[Option, ...]
    models: tuple[Model, ...]
    parsers: tuple[Parser, ...]

    @cached_property
    def options_by_key(self) -> dict[str, Option]:
        return {option.key: option for option in self.options}

    @property
    def embedded_model(self) -> Model:
        """The model that is baked into every image."""
        return next(model for model in self.models if model.embedded)

    def model(self, model_id: str) -> Model | None:
        """The listed model of that name, if it is listed."""
        return next((model for model in self.models if model.id.lower() == model_id.lower()), None)

    def default_model(self, gpu_memory_gib: float) -> Model:
        """The first listed model, from the top, that fits into one GPU of that memory (0: no GPU)."""
        return next(model for model in self.models if model.gpu_memory_gib <= gpu_memory_gib)

    def parser(self, model_id: str) -> Parser | None:
        """Parsers for a model: its own when it is listed, else the first pattern that matches its name."""
        listed = self.model(model_id)
        if listed:
            return Parser(match=listed.id, tool=listed.tool_parser, reasoning=listed.reasoning_parser)
        return next((parser for parser in self.parsers if fnmatch(model_id.lower(), parser.match)), None)


def load(path: Path | None = None) -> Manifest:
    """Read and check the manifest: at `path`, else beside the package's folder, else (appliance) one up.

    Raises:
        ManifestError: it cannot be read, is not YAML, or breaks a rule.
    """
    if path is None:
        beside = REPOSITORY / "marketplace.yaml"
        path = beside if beside.exists() else REPOSITORY.parent / beside.name
    try:
        return Manifest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ManifestError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        rules = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ManifestError(f"{path}: {rules}") from error
