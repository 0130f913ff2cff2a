"""What our sizing promises for a model on this machine, in the units in which vLLM reports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aisandbox import manifest
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.choose.resolve import resolve
from aisandbox.instance.fit import sizing
from aisandbox.instance.fit.hardware import GIB, Hardware
from aisandbox.instance.fit.sizing.fit import Fit


@dataclass(frozen=True)
class Estimate:
    """How the model is served, and what it is thought to need on each GPU."""

    args: tuple[str, ...]
    """vLLM's arguments."""
    sentence: str
    way: Fit

    @property
    def weights_gib(self) -> float:
        return self.way.weights / GIB

    @property
    def cache_gib(self) -> float:
        return self.way.free / GIB

    def cache_tokens(self, context: int) -> int | None:
        """Tokens of the cache when each request has that length, as vLLM counts them."""
        return self.way.capacity(context)


def make(name: str, folder: Path, hardware: Hardware) -> Estimate:
    """Size the model in the folder as the product does before a download.

    Raises:
        UnobtainableError: the product would refuse it on this machine.
    """
    listing = manifest.load()
    config = sizing.parse((folder / "config.json").read_bytes())
    files = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
    sized = sizing.size(resolve(Choice(model=name), (), listing, hardware), config, files, listing)
    assert sized.fit
    return Estimate(sized.args, sized.sentence, sized.fit)
