"""The machine that listings propose: its plan and its disk."""

from __future__ import annotations

from aisandbox.builder.errors import BuildError
from aisandbox.builder.listing.ports import Door
from aisandbox.manifest import Manifest

LEAST_DISK_GB = 64
"""The image with the CUDA flavour, and room for a small model."""
DISK_GB = 200
"""Room for the image and several large models."""


def sizes(manifest: Manifest, target: str) -> tuple[str, ...]:
    """Names of the target's plans, the one to propose first."""
    return tuple(plan.name for plan in manifest.targets[target].plans)


def size(manifest: Manifest, target: str) -> str:
    """The plan to propose.

    Raises:
        BuildError: the target has none.
    """
    found = sizes(manifest, target)
    if not found:
        raise BuildError(
            f"target {target} has no plan to propose", f"add to targets.{target}.plans in marketplace.yaml"
        )
    return found[0]


def image_name(manifest: Manifest) -> str:
    """Name of the version's image where names hold no dots."""
    return f"{manifest.product.id}-{manifest.product.version}".replace(".", "-")


def terraform_condition(door: Door) -> str:
    """Terraform's expression for whether the choice opens the port."""
    if door.public or not door.option:
        return "true"
    return f'var.{door.option} == "{door.value}"' if door.value else f'var.{door.option} != ""'
