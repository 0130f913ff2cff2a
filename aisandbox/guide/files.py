"""The files that the guide is built from, besides its base."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
ADAPTER = FOLDER / "adapter.safetensors"
CHAT_TEMPLATE = FOLDER / "chat_template.jinja"
RECIPE = FOLDER / "recipe.yaml"
