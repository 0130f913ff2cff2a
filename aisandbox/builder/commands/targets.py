"""Bake for a platform, and validate its template."""

from __future__ import annotations

from typing import Annotated

import typer

from aisandbox import manifest
from aisandbox.builder.targets import find, validation


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(validate)


def validate(target: Annotated[str, typer.Option(help="One target; all without it.")] = "") -> None:
    """Check the Packer template of every target, with fake credentials."""
    validation.check_sources()
    if target:
        find(target)
    for name in [target] if target else manifest.load().targets:
        print(f"{name:<13} {validation.validate(name)}", flush=True)
