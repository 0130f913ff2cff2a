"""Which model to get, and which of its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

DEFAULT_ENDPOINT = "https://huggingface.co"
WEIGHT_SUFFIXES = (".safetensors", ".bin")
SMALL_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
MAX_CONFIG_BYTES = 16 * 1024**2
"""No honest `config.json` is larger; nobody reads more than one byte beyond it."""
OTHER_FORMATS = {"original", "metal", "onnx", "openvino", "coreml"}
"""Folders that publishers keep copies of the weights in, for other programs than vLLM."""


@dataclass(frozen=True)
class Request:
    """Which model to get, and from where."""

    model: str
    revision: str = "main"
    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    known: tuple[str, ...] = ()
    """Names to suggest, besides the hub's own, when there is no such model."""

    @property
    def address(self) -> str:
        return (self.endpoint or DEFAULT_ENDPOINT).rstrip("/")


@dataclass(frozen=True)
class Listing:
    """What a hub tells about a model before any weight is fetched."""

    commit: str
    sizes: Mapping[str, int]
    """Bytes of every file that is needed."""
    config: str | None
    """Text of `config.json`."""
    quant_config: str | None = None
    """Text of `hf_quant_config.json`."""

    @property
    def weights(self) -> dict[str, int]:
        return {name: size for name, size in self.sizes.items() if name.endswith(WEIGHT_SUFFIXES)}


def wanted(names: Iterable[str]) -> list[str]:
    """The files that vLLM needs of a repository: one set of weights, configuration and tokenizer.

    Empty when there are no weights that vLLM can load.
    """
    names = [name for name in names if not OTHER_FORMATS & set(PurePosixPath(name).parts[:-1])]
    for suffix in WEIGHT_SUFFIXES:
        weights = [name for name in names if name.endswith(suffix) and "/" not in name and name != "training_args.bin"]
        # Some publishers add the same weights again, in one piece or under their own format's name.
        weights = [name for name in weights if not name.startswith("consolidated")] or weights
        if weights:
            return weights + [name for name in names if name.endswith(SMALL_SUFFIXES)]
    return []
