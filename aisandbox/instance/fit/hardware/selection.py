"""Which of the machine's GPUs serve the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from aisandbox.instance.deployment import Gpu
from aisandbox.instance.fit.hardware import faults
from aisandbox.instance.fit.hardware.facts import GIB
from aisandbox.instance.fit.hardware.nvml import Device, Unit
from aisandbox.instance.problem import Problem


@dataclass(frozen=True)
class Taken:
    """Memory of a GPU that other programs have."""

    bytes: int = 0
    who: str = ""


@dataclass(frozen=True)
class Selection:
    """The GPUs that serve, and what keeps others from it."""

    gpus: tuple[Gpu, ...] = ()
    devices: tuple[str, ...] = ()
    """Their UUIDs; empty when they are all that the driver counts, so that nothing has to be left out."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    device: Device
    unit: Unit
    taken: Taken

    @property
    def free(self) -> int:
        return max(self.unit.total - self.taken.bytes, 0)

    @property
    def kind(self) -> tuple[str, str]:
        """Equal for GPUs that can share a model. A MIG slice shares with none: CUDA gives a program only one."""
        unit = self.unit
        only = unit.uuid or "" if self.device.sliced else ""
        return f"{unit.name} {unit.capability} {unit.total / GIB:.0f}", only

    @property
    def gpu(self) -> Gpu:
        return Gpu(
            name=self.unit.name,
            memory_gib=round(self.free / GIB, 1),
            capability=self.unit.capability,
            uuid=self.unit.uuid,
            taken_gib=round(self.taken.bytes / GIB, 1),
        )


def select(devices: Sequence[Device], closed: Iterable[str], taken: Callable[[Unit], Taken]) -> Selection:
    """The equal GPUs that together have most memory for the model, and a problem for each that is left out.

    Args:
        closed: device nodes that the model server may not open.
        taken: what other programs have of a GPU.
    """
    closed = tuple(closed)
    broken = {device.index: problem for device in devices if (problem := faults.unusable(device, closed))}
    problems = list(dict.fromkeys(broken.values()))
    candidates = [
        _Candidate(device, unit, taken(unit))
        for device in devices
        if device.index not in broken and device.unit
        for unit in (device.slices if device.sliced else (device.unit,))
    ]
    chosen = _best(candidates)
    if not chosen:
        return Selection(problems=tuple(problems))
    problems += [
        faults.taken(other.device, other.taken.who, other.taken.bytes, other in chosen)
        for other in candidates
        if other.taken.bytes
    ]
    for other in devices:
        if len(other.slices) > 1:
            problems.append(
                faults.sliced(other, _names(one for one in chosen if one.device == other) or "none of them")
            )
    idle = [one for one in candidates if one not in chosen and not one.taken.bytes and not one.device.sliced]
    if idle:
        problems.append(faults.unequal(_names(chosen), _names(idle)))
    for one in {one.device.index: one.device for one in chosen}.values():
        problems += faults.lasting(one)
    uuids = tuple(one.unit.uuid for one in chosen if one.unit.uuid)
    restricted = len(chosen) < len(devices) or any(one.device.sliced for one in chosen)
    return Selection(
        gpus=tuple(one.gpu for one in chosen),
        devices=uuids if restricted and len(uuids) == len(chosen) else (),
        problems=tuple(problems),
    )


def _best(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Every GPU of a group has the same part of the model, so the one with least memory counts for all of them."""
    groups = []
    for _, same in groupby(sorted(candidates, key=lambda one: one.kind), key=lambda one: one.kind):
        by_room = sorted(same, key=lambda one: -one.free)
        groups += [by_room[:count] for count in range(1, len(by_room) + 1)]
    best = max(groups, key=lambda group: (len(group) * group[-1].free, len(group)), default=[])
    return sorted(best, key=lambda one: one.device.index)


def _names(candidates: Iterable[_Candidate]) -> str:
    counted = Counter(one.unit.name for one in candidates)
    return " and ".join(f"{count} {name}" for name, count in counted.items())
