"""FlashInfer's precompiled kernels for the flavour cuda: their lock, their index, and whether a baked image has them.

They are not on PyPI but on FlashInfer's own index. A bake goes on without them, and says what that costs.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from aisandbox import manifest
from aisandbox.builder import host
from aisandbox.builder.supply.inventory import Inventory, Kind

NAME = "flashinfer-cuda"
LOCK = manifest.REPOSITORY / "locks" / f"{NAME}.txt"
DEFAULTS = manifest.REPOSITORY / "roles" / "vllm" / "defaults" / "main.yml"
PACKAGES = ("flashinfer_cubin", "flashinfer_jit_cache")
PIN = re.compile(r"^[a-z0-9-]+==", re.MULTILINE)
LABEL = re.compile(r"^flashinfer-jit-cache==\S+\+(cu\d+)", re.MULTILINE)
COST = (
    "the image has no FlashInfer kernels: on Hopper and newer GPUs the first start of a model compiles them for "
    "minutes, and may fetch some from NVIDIA"
)


def index() -> str:
    """Address of FlashInfer's index: `$FLASHINFER_INDEX`, else the vendor's."""
    defaults = yaml.safe_load(DEFAULTS.read_text())
    return host.read().mirrors.get("vllm_flashinfer_index") or str(defaults["vllm_flashinfer_index"])


def index_options(place: str, requirements: str) -> list[str]:
    """uv's options for the index: jit-cache lies below it by CUDA's version, such as cu130; as roles/vllm has it."""
    label = LABEL.search(requirements)
    assert label, f"locks/{NAME}.in pins no flashinfer-jit-cache with a CUDA version"
    return ["--default-index", f"{place}/{label[1]}", "--index", place]


def version(inventory: Inventory) -> str | None:
    """Version of the kernels that an image has; None when it has none."""
    found = {package.name: package.version for package in inventory.of(Kind.python) if "vllm" in package.places}
    return found.get("flashinfer-jit-cache") if "flashinfer-cubin" in found else None


def missing(root: Path) -> str | None:
    """What the layer of vLLM below `root` lacks and how to supply it; None when it has the kernels."""
    if all(any(root.glob(f"opt/*/envs/vllm/lib/python3*/site-packages/{name}")) for name in PACKAGES):
        return None
    if not PIN.search(LOCK.read_text()):
        return f"{COST}. They are not locked: `make lock ONLY={NAME}` where {index()} can be reached, then bake again"
    return f"{COST}. {index()} could not be reached: set FLASHINFER_INDEX to a mirror of it, then bake again"
