"""What NVIDIA's management library (NVML) tells of driver and GPUs. It is loaded only here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

UNCORRECTED, VOLATILE = 1, 0
HEAT = 0x20 | 0x40
"""Reasons for a slow clock: the driver, or the GPU itself, keeps it from getting hotter."""
POWER_BRAKE = 0x80
"""The machine's power supply asks for less."""
VIRTUAL_GPU = 2
"""Virtualisation mode of a GPU that a hypervisor shares out (vGPU)."""


@dataclass(frozen=True)
class Failure:
    """A call that the library answered with an error."""

    code: int
    text: str
    """In the library's words."""


@dataclass(frozen=True)
class Process:
    """A program that computes on a GPU."""

    pid: int
    name: str
    bytes: int | None
    """GPU memory that it has; None when the driver does not tell."""


@dataclass(frozen=True)
class Unit:
    """What can be computed on: a GPU, or a MIG slice of one. Sizes are in bytes."""

    uuid: str | None
    name: str
    total: int
    """Without what the driver keeps for itself."""
    used: int
    capability: tuple[int, int] | None
    processes: tuple[Process, ...]


@dataclass(frozen=True)
class Device:
    """One GPU as the driver counts it. What the driver does not tell is None, or 0 for counts."""

    index: int
    failure: Failure | None = None
    """Why nothing is known about it."""
    address: str | None = None
    """On the PCI bus, such as 0000:65:00.0."""
    minor: int | None = None
    """Number of its device node."""
    unit: Unit | None = None
    sliced: bool = False
    """Whether it is in MIG mode, in which only its slices can be used."""
    slices: tuple[Unit, ...] = ()
    virtual: bool = False
    licensed: bool | None = None
    """Whether a virtual GPU has its licence; None when it needs none."""
    memory_errors: int = 0
    """Uncorrectable ones since the driver was loaded."""
    repair_pending: bool = False
    """Whether the GPU replaces damaged memory with its next start."""
    repair_failed: bool = False
    """Whether it has no spare memory left for that."""
    slow: int = 0
    """Reasons why its clock is slow, as bits."""
    power_w: tuple[int, int] | None = None
    """Limit in force, and the one it was made for."""
    persistent: bool | None = None
    """Whether the driver keeps it ready while nobody uses it."""


@dataclass(frozen=True)
class Answer:
    """All that the library tells."""

    failure: Failure | None = None
    """Why it tells nothing."""
    driver: str | None = None
    cuda: str | None = None
    devices: tuple[Device, ...] = ()


def ask() -> Answer:
    """Ask the library about everything. Never fails."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Answer(_failure(error))
    try:
        cuda = _known(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return Answer(
            driver=str(pynvml.nvmlSystemGetDriverVersion()),
            cuda=cuda and f"{cuda // 1000}.{cuda % 1000 // 10}",
            devices=tuple(_device(index) for index in range(pynvml.nvmlDeviceGetCount())),
        )
    except (pynvml.NVMLError, ValueError) as error:
        return Answer(_failure(error))
    finally:
        pynvml.nvmlShutdown()


def _failure(error: Exception) -> Failure:
    """An `NVMLError` comes with its code; the Python library raises `ValueError` for answers that it cannot read."""
    return Failure(getattr(error, "value", 0), str(error))


def _known(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None: an older driver, or a smaller GPU, does not know every question."""
    import pynvml

    try:
        return ask(*arguments)
    except (pynvml.NVMLError, ValueError):
        return None


def _device(index: int) -> Device:
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        unit = _unit(handle)
    except (pynvml.NVMLError, ValueError) as error:
        return Device(index, _failure(error))
    pci = _known(pynvml.nvmlDeviceGetPciInfo, handle)
    sliced = bool((_known(pynvml.nvmlDeviceGetMigMode, handle) or [0])[0])
    virtual = _known(pynvml.nvmlDeviceGetVirtualizationMode, handle) == VIRTUAL_GPU
    # Corrected and uncorrected rows, whether one waits for a reset, whether one could not be replaced.
    rows = _known(pynvml.nvmlDeviceGetRemappedRows, handle) or (0, 0, 0, 0)
    pages = _known(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)
    persistent = _known(pynvml.nvmlDeviceGetPersistenceMode, handle)
    return Device(
        index,
        address=pci and _kernels(pci.busId),
        minor=_known(pynvml.nvmlDeviceGetMinorNumber, handle),
        unit=unit,
        sliced=sliced,
        slices=tuple(_slices(handle, unit.capability)) if sliced else (),
        virtual=virtual,
        licensed=_licensed(handle) if virtual else None,
        memory_errors=_known(pynvml.nvmlDeviceGetTotalEccErrors, handle, UNCORRECTED, VOLATILE) or 0,
        repair_pending=bool(rows[2] or pages),
        repair_failed=bool(rows[3]),
        slow=_known(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0,
        power_w=_power(handle),
        persistent=None if persistent is None else bool(persistent),
    )


def _kernels(address: str) -> str:
    """The address as the kernel writes it: NVML has more digits in the first part."""
    domain, _, rest = address.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def _unit(handle: Any, capability: tuple[int, int] | None = None) -> Unit:
    """Raises `NVMLError` when the GPU does not even tell its name and its memory."""
    import pynvml

    memory = _known(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    reserved = memory.reserved if memory else 0
    memory = memory or pynvml.nvmlDeviceGetMemoryInfo(handle)
    found = _known(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Unit(
        uuid=_known(pynvml.nvmlDeviceGetUUID, handle),
        name=str(pynvml.nvmlDeviceGetName(handle)),
        total=memory.total - reserved,
        used=memory.used,
        capability=(found[0], found[1]) if found else capability,
        processes=tuple(_processes(handle)),
    )


def _processes(handle: Any) -> Iterator[Process]:
    import pynvml

    for process in _known(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or ():
        name = _known(pynvml.nvmlSystemGetProcessName, process.pid) or "a program"
        yield Process(process.pid, name, process.usedGpuMemory)


def _slices(handle: Any, capability: tuple[int, int] | None) -> Iterator[Unit]:
    """The GPU's MIG slices. Their numbers may have gaps."""
    import pynvml

    for number in range(_known(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _known(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if part is not None and (unit := _known(_unit, part, capability)):
            yield unit


def _licensed(handle: Any) -> bool | None:
    import pynvml

    found = _known(pynvml.nvmlDeviceGetGridLicensableFeatures, handle)
    if not found or not found.isGridLicenseSupported:
        return None
    features = found.gridLicensableFeatures[: found.licensableFeaturesCount]
    return any(feature.featureState for feature in features)


def _power(handle: Any) -> tuple[int, int] | None:
    import pynvml

    now = _known(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    usual = _known(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
    return (now // 1000, usual // 1000) if now and usual else None
