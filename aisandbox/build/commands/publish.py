"""Hand images and listings to the marketplaces."""

from __future__ import annotations

import typer


def register(_app: typer.Typer) -> None:
    """Add the commands."""
