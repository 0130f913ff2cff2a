"""The targets of `marketplace.yaml`, and what must be there before one is baked for."""

from __future__ import annotations

from collections.abc import Mapping

from aisandbox import manifest
from aisandbox.builder import packer_client, versions
from aisandbox.builder.errors import BuildError
from aisandbox.manifest import Target


def find(name: str) -> Target:
    """The target of that name.

    Raises:
        BuildError: there is none.
    """
    targets = manifest.load().targets
    if name not in targets:
        raise BuildError(f"there is no target {name!r}", f"take one of these: {', '.join(targets)}")
    return targets[name]


def clouds() -> dict[str, Target]:
    """The targets that Packer bakes."""
    return {name: target for name, target in manifest.load().targets.items() if target.kind == "cloud"}


def check_credentials(target: Target, environment: Mapping[str, str]) -> None:
    """Check that the variables are set that the target's builder wants.

    Raises:
        BuildError: some are missing, all of which it names.
    """
    missing = [name for name in target.credentials if not environment.get(name)]
    if missing:
        raise BuildError(
            f"baking for {target.title} needs {' and '.join(missing)} in the environment",
            f"get them at {target.credentials_url}, then: export {' '.join(f'{name}=…' for name in missing)}",
        )


def check_packer(target: Target) -> None:
    """Check that this host's Packer has the platform's builder.

    Raises:
        BuildError: there is no Packer, or it is too old.
    """
    if not supported(target, packer_client.version()):
        found = ".".join(map(str, packer_client.version()))
        raise BuildError(
            f"{target.title} needs Packer {target.packer} or later (found {found}): older ones cannot load its builder",
            f"install Packer {versions.recommended_packer()} or later from {packer_client.INSTALL}, "
            "then: packer init packer/plugins",
        )


def supported(target: Target, version: tuple[int, ...]) -> bool:
    """Whether a Packer of that version has the platform's builder."""
    return version >= versions.numbers(target.packer)
