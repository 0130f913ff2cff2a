"""The adapter as a file: its format, what it was made from, and how it is merged into a model's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

_A, _B = ".lora_A.weight", ".lora_B.weight"


class AdapterError(ValueError):
    """The file is no adapter of ours, or does not belong to these weights."""


@dataclass(frozen=True)
class Adapter:
    """Low-rank changes of a model's weights.

    Attributes:
        pairs: by the name of the weight that they change, A (rank x inputs) and B (outputs x rank).
        scale: what B A is multiplied by.
        made_from: digest of base, data and recipe, see `aisandbox.teaching.fingerprint`.
    """

    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    scale: float
    made_from: str

    def save(self, path: Path) -> None:
        """Write it as safetensors, half precision."""
        tensors = {
            name.removesuffix(".weight") + suffix: matrix.detach().to(torch.float16).contiguous()
            for name, pair in sorted(self.pairs.items())
            for suffix, matrix in zip((_A, _B), pair, strict=True)
        }
        metadata = {"format": "pt", "scale": json.dumps(self.scale), "made_from": self.made_from}
        safetensors.torch.save_file(tensors, path, metadata)

    def merge(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights with the changes added, in single precision.

        Raises:
            AdapterError: it changes a weight that is not there, or of another shape.
        """
        merged = {name: weight.float() for name, weight in weights.items()}
        for name, (a, b) in self.pairs.items():
            if name not in merged or merged[name].shape != (b.shape[0], a.shape[1]):
                raise AdapterError(f"the adapter does not belong to these weights: {name}")
            merged[name] = merged[name] + self.scale * (b.float() @ a.float())
        return merged


def mean(adapters: Sequence[Adapter], made_from: str) -> Adapter:
    """What lies between adapters that came from one another: it keeps more of what each can do than the last alone."""
    pairs = {
        name: (_mean([each.pairs[name][0] for each in adapters]), _mean([each.pairs[name][1] for each in adapters]))
        for name in adapters[0].pairs
    }
    return Adapter(pairs, adapters[0].scale, made_from)


def _mean(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([matrix.float() for matrix in matrices]).mean(0)


def load(path: Path) -> Adapter:
    """Read an adapter that `Adapter.save` wrote.

    Raises:
        AdapterError: it cannot be read, or is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        names = sorted(name.removesuffix(_A) for name in tensors if name.endswith(_A))
        pairs = {f"{name}.weight": (tensors[name + _A], tensors[name + _B]) for name in names}
        return Adapter(pairs, float(json.loads(metadata["scale"])), metadata["made_from"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise AdapterError(f"{path}: no adapter of ours: {error}") from error
