"""Check images, root file systems and hosts for what no marketplace accepts."""

from __future__ import annotations

import typer


def register(_app: typer.Typer) -> None:
    """Add the commands."""
