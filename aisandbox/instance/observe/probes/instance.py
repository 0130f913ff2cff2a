"""The instance that probes look at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.access import Access
from aisandbox.instance.deployment import Deployment, Hardware
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest


@dataclass(frozen=True)
class Owners:
    """What those who decide know, for probes to look at: handed in, as observing imports nothing above it."""

    hardware: Callable[[Places], Hardware]
    given: Callable[[Places, Manifest], Iterable[Mapping[str, Any]]]
    """The options as they were given, valid or not."""
    cuda: str
    """Release of CUDA that the image's engine needs."""
    least_driver: int
    """Oldest NVIDIA driver that serves it."""


@dataclass(frozen=True)
class Instance:
    """The instance under examination."""

    places: Places
    manifest: Manifest
    owners: Owners
    root: bool = field(default_factory=lambda: os.geteuid() == 0)
    """Whether everything may be looked at."""

    @cached_property
    def deployment(self) -> Deployment | None:
        """What configure resolved."""
        return Deployment.find(self.places.resolved)

    @cached_property
    def access(self) -> Access:
        return self.deployment.access if self.deployment else Access()

    @cached_property
    def hardware(self) -> Hardware:
        return self.owners.hardware(self.places)

    def report(self, service: str) -> dict[str, Any]:
        """What the service last reported."""
        return files.read_json(self.places.status(service)) or {}

    def port(self, name: str) -> int:
        return self.manifest.ports[name].port
