"""The instance that probes look at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from aisandbox.instance import files
from aisandbox.instance.access import Access
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem
from aisandbox.manifest import Manifest


class Gpu(Protocol):
    """A GPU that the model server uses."""

    @property
    def name(self) -> str: ...
    @property
    def memory_gib(self) -> float: ...


class Hardware(Protocol):
    """What the machine is, as `fit.hardware` finds it."""

    @property
    def flavour(self) -> str: ...
    @property
    def gpus(self) -> Sequence[Gpu]: ...
    @property
    def driver(self) -> str | None: ...
    @property
    def cuda(self) -> str | None: ...
    @property
    def fault(self) -> str | None: ...
    @property
    def fix(self) -> str | None: ...
    @property
    def problems(self) -> Sequence[Problem]: ...
    @property
    def conditions(self) -> Sequence[Problem]: ...
    def model_dump_json(self, *, indent: int | None = None) -> str: ...


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
    def plan(self) -> dict[str, Any] | None:
        return files.read_json(self.places.plan)

    @cached_property
    def access(self) -> Access:
        return Access.model_validate((self.plan or {}).get("access") or {})

    @cached_property
    def hardware(self) -> Hardware:
        return self.owners.hardware(self.places)

    def report(self, service: str) -> dict[str, Any]:
        """What the service last reported."""
        return files.read_json(self.places.status(service)) or {}

    def port(self, name: str) -> int:
        return self.manifest.ports[name].port
