"""Make the bundle that running instances upgrade from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aisandbox.builder.commands.options import Flavour, FlavourOption


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(release)


def release(
    key: Annotated[Path, typer.Option(help="Secret key of minisign; AISANDBOX_SIGNING_PASSWORD holds its password.")],
    flavour: FlavourOption = Flavour.cpu,
    since: Annotated[
        Path | None, typer.Option(help="Folder of an earlier release: what instances of that one have is left out.")
    ] = None,
    archives: Annotated[bool, typer.Option(help="Without archives, it serves as --since of later ones only.")] = True,
) -> None:
    """Bake, then write the signed release for `aisandbox upgrade` to build/release/."""
    from aisandbox import manifest
    from aisandbox.builder import release as releases
    from aisandbox.builder import signing
    from aisandbox.builder.bake import bake
    from aisandbox.builder.layers import Store
    from aisandbox.builder.progress import Phases

    # Before minutes of baking.
    signing.check_key(key)
    with Phases(Console(stderr=True)) as phases:
        top = bake(flavour.value, phases)
        lower = Store().lower_directories(top)
        print(releases.write(lower, manifest.load(), flavour.value, key, phases, since=since, archives=archives))
