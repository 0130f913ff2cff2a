"""The options as JSON Schema."""

from __future__ import annotations

import json

import typer


def schema(context: typer.Context) -> None:
    """Print the options as JSON Schema (draft 2020-12), for forms and programs."""
    print(json.dumps(context.obj.manifest.options_schema(), indent=1))
