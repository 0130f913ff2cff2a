"""What all commands share."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from aisandbox.instance.places import Places
    from aisandbox.manifest import Manifest

BAD_INPUT = 2
"""Exit status of a command that was told something impossible."""


@functools.cache
def manifest() -> Manifest:
    """The product's manifest."""
    from aisandbox import manifest as manifests

    return manifests.load()


class Context:
    """What every command needs: the manifest, and the places it names."""

    def __init__(self, root: Path) -> None:
        from aisandbox.instance.places import Places

        self.manifest = manifest()
        self.places: Places = Places.of(self.manifest, root)


def need_root(places: Places) -> None:
    if places.live and os.geteuid() != 0:
        say("This changes the instance, so it needs root: run it again with sudo.")
        raise typer.Exit(1)


def say(text: str) -> None:
    print(text, file=sys.stderr)
