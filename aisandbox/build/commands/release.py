"""Make the bundle that running instances upgrade from."""

from __future__ import annotations

import typer


def register(_app: typer.Typer) -> None:
    """Add the commands."""
