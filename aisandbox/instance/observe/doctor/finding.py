"""What a check finds, and what it may look at."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from aisandbox.instance import files
from aisandbox.instance.access import Access
from aisandbox.instance.deployment import Deployment, Hardware
from aisandbox.instance.fit import hardware
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest, Part

Severity = Literal["ok", "skipped", "warning", "failed"]


class Finding(Part):
    """One thing that a check found. What is not well comes with what mends it."""

    severity: Severity
    text: str
    cause: str = ""
    fix: str = ""


def ok(text: str) -> Finding:
    return Finding(severity="ok", text=text)


def skipped(text: str) -> Finding:
    """For what cannot be looked at here, which is no fault."""
    return Finding(severity="skipped", text=text)


def warning(text: str, fix: str, cause: str = "") -> Finding:
    return Finding(severity="warning", text=text, cause=cause, fix=fix)


def failed(text: str, fix: str, cause: str = "") -> Finding:
    return Finding(severity="failed", text=text, cause=cause, fix=fix)


@dataclass(frozen=True)
class Instance:
    """The instance under examination."""

    places: Places
    manifest: Manifest
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
        return hardware.find(self.places)

    def report(self, service: str) -> dict[str, Any]:
        """What the service last reported."""
        return files.read_json(self.places.status(service)) or {}

    def port(self, name: str) -> int:
        return self.manifest.ports[name].port
