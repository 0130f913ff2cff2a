"""Tell what an image is made of."""

from __future__ import annotations

import typer


def register(_app: typer.Typer) -> None:
    """Add the commands."""
