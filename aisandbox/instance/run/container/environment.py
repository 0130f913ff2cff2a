"""The environment variables that the container was started with, as far as they are ours to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.address import RUNPOD
from aisandbox.instance.places import Places

PREFIX = "AISANDBOX_"
DEBUG = f"{PREFIX}DEBUG"
"""Of ours, but no option."""


def taken(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are ours to know, of a container's environment."""
    return {name: value for name, value in environment.items() if name.startswith(PREFIX) or name == RUNPOD}


def given(places: Places) -> dict[str, Any]:
    """Those of this container."""
    return files.read_json(places.environment) or {}
