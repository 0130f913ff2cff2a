"""Makes the image of a target, whichever way it is made."""

from __future__ import annotations

from pathlib import Path

from aisandbox.builder import appliance_container
from aisandbox.builder.bake import bake as bake_layers
from aisandbox.builder.errors import BuildError
from aisandbox.builder.image import IMAGES, write_image
from aisandbox.builder.progress import Phases
from aisandbox.builder.targets import qemu
from aisandbox.builder.targets.baking import bake
from aisandbox.builder.targets.catalogue import find


def make(target: str, flavour: str, source: str, phases: Phases) -> list[Path | str]:
    """Make the image of `target`; returns its files, or its id on the platform and the record's path.

    Args:
        target: empty for every file of the local bake.
        source: image that the platform starts from, in place of its template's; empty for that.

    Raises:
        BuildError: there is no such target, it needs something that is missing here, or the bake failed.
    """
    kind = find(target).kind if target else "disk"
    if source and kind != "cloud":
        raise BuildError(
            "a source image is for platforms that start from one", f"leave it out: make image TARGET={target}"
        )
    if kind == "cloud":
        record = bake(target, flavour, phases, extra={"source_image": source} if source else None)
        if target == "qemu":
            return [*sorted(qemu.OUTPUT.iterdir()), IMAGES / target / "manifest.json"]
        return [str(record["artifact_id"]), IMAGES / target / "manifest.json"]
    if kind == "container":
        return [appliance_container.write(flavour, phases)]
    files = write_image(bake_layers(flavour, phases), phases)
    return [path for path in files if not target or f".{target}" in path.name]
