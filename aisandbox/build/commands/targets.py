"""Bake for a platform, and validate its template."""

from __future__ import annotations

import typer


def register(_app: typer.Typer) -> None:
    """Add the commands."""
