"""The environment variables that the container was started with, as far as they are ours to know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.places import Places

PREFIX = "AISANDBOX_"
DEBUG = f"{PREFIX}DEBUG"
"""Of ours, but no option."""
RUNPOD = "RUNPOD_POD_ID"
"""RunPod names the pod, and so its addresses: its proxy hides the name that a visitor's browser used."""


def taken(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are ours to know, of a container's environment."""
    return {name: value for name, value in environment.items() if name.startswith(PREFIX) or name == RUNPOD}


def given(places: Places) -> dict[str, Any]:
    """Those of this container."""
    return files.read_json(places.environment) or {}


def address(places: Places, port: int) -> str | None:
    """Where the platform's proxy serves that port, where that is known."""
    pod = str(given(places).get(RUNPOD) or "")
    return f"https://{pod}-{port}.proxy.runpod.net" if re.fullmatch(r"[a-z0-9]{1,63}", pod) else None
