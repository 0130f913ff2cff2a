"""The container of the whole appliance, for GPU clouds that run containers: behind `make image TARGET=container`."""

from __future__ import annotations

from pathlib import Path

from aisandbox import manifest
from aisandbox.builder import archive
from aisandbox.builder.archive import Image, Part
from aisandbox.builder.bake import bake
from aisandbox.builder.layers import Store, load, stack
from aisandbox.builder.progress import Phases

TOP = "appliance-container"
OUTPUT = manifest.REPOSITORY / "build" / "image" / "container"
HEAVY = {
    "vllm": ("envs/vllm",),
    "open-webui": ("envs/open-webui",),
    "workbench": ("envs/workbench",),
    "code-server": ("code-server",),
}
"""Folders of the product that one layer fills, each a part of its own: a host that has it need not get it again."""


def bake_image(flavour: str, phases: Phases) -> Image:
    """Bake what is missing of the layers.

    Raises:
        BuildError: a layer could not be baked.
    """
    bake(flavour, phases, TOP)
    layers, store = load(flavour), Store()
    top, appliance = layers[TOP], layers["appliance"]
    opt = manifest.load().paths.opt.relative_to("/")
    below = ":".join(str(store.rootfs(layer)) for layer in reversed(stack(appliance.parents)))
    parts = [
        Part(f"{flavour}-{name}-{layers[name].key}", below, only=tuple(str(opt / path) for path in paths))
        for name, paths in HEAVY.items()
    ]
    rest = Part(
        f"{flavour}-{top.id}",
        store.lower_directories(top),
        without=tuple(path for part in parts for path in part.only),
        changed=tuple(str(store.rootfs(layer)) for layer in (appliance, top)),
    )
    return Image(f"localhost/{archive.PRODUCT}-{flavour}", (*parts, rest), archive.said_by(top))


def write(flavour: str, phases: Phases) -> Path:
    """Write the image for `docker load` and `podman load`; returns where it lies.

    Raises:
        BuildError: a layer could not be baked, or the disk is full.
    """
    image = bake_image(flavour, phases)
    path = OUTPUT / f"{archive.PRODUCT}-{flavour}.tar"
    archive.write(image, path, phases)
    return path
