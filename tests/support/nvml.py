"""A machine's GPUs for tests: recorded answers for the double of NVIDIA's management library (`nvml.c`)."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml.c")
MIB = 1024**2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
LOST = 15
MISMATCH = 18
"""Statuses of the library (nvml.h)."""
PER_GPU = {
    "nvmlDeviceGetHandleByIndex_v2": "0",
    "nvmlDeviceGetMigMode": str(NOT_SUPPORTED),
    "nvmlDeviceGetPersistenceMode": "0 1",
    "nvmlDeviceGetCurrentClocksEventReasons": "0 1",
    "nvmlDeviceGetVirtualizationMode": "0 1",
    "nvmlDeviceGetTotalEccErrors": "0 0",
    "nvmlDeviceGetRemappedRows": "0 0 0 0 0",
    "nvmlDeviceGetRetiredPagesPendingStatus": "0 0",
    "nvmlDeviceGetEnforcedPowerLimit": "0 72000",
    "nvmlDeviceGetPowerManagementDefaultLimit": "0 72000",
}
"""What a healthy GPU of a virtual machine answers: a status, then values."""


@dataclass(frozen=True)
class Card:
    """One GPU, or one MIG slice of it."""

    name: str
    mib: int
    capability: tuple[int, int]
    reserved_mib: int = 0
    used_mib: int = 0
    processes: tuple[tuple[int, int], ...] = ()
    """Process ids, and the MiB that each has; at most two."""
    slices: tuple[Card, ...] = ()
    answers: dict[str, str] = field(default_factory=dict)
    """What it answers otherwise than a healthy one, by function."""


def recorded(
    *cards: Card, driver: str = "580.95.05", cuda: int = 13000, error: int = 0, names: dict[int, str] | None = None
) -> str:
    """The answers of a machine with these GPUs. `error` is the status that every start of the library fails with."""
    lines = [
        f"nvmlInitWithFlags - {error}",
        f"nvmlSystemGetDriverVersion - 0 {driver}",
        f"nvmlSystemGetCudaDriverVersion_v2 - 0 {cuda}",
        f"nvmlSystemGetCudaDriverVersion - 0 {cuda}",
        f"nvmlDeviceGetCount_v2 - 0 {len(cards)}",
        *(f"nvmlSystemGetProcessName {pid} 0 {name}" for pid, name in (names or {}).items()),
    ]
    for index, card in enumerate(cards):
        mig = {"nvmlDeviceGetMigMode": "0 1 1", "nvmlDeviceGetMaxMigDeviceCount": "0 7"} if card.slices else {}
        place = {
            "nvmlDeviceGetUUID": f"0 GPU-{index}",
            "nvmlDeviceGetPciInfo_v3": f"0 00000000:{index + 1:02X}:00.0",
            "nvmlDeviceGetMinorNumber": f"0 {index}",
        }
        lines += _device(str(index), card, PER_GPU | place | mig)
        for number, part in enumerate(card.slices):
            place = {
                "nvmlDeviceGetMigDeviceHandleByIndex": "0",
                "nvmlDeviceGetUUID": f"0 MIG-{index}-{number}",
            }
            lines += _device(f"{index}/{number}", part, place)
    return "".join(f"{line}\n" for line in lines)


def _device(device: str, card: Card, answers: dict[str, str]) -> Iterable[str]:
    total, reserved, used = (mib * MIB for mib in (card.mib, card.reserved_mib, card.used_mib))
    free = total - reserved - used
    own = {
        "nvmlDeviceGetName": f"0 {card.name}",
        "nvmlDeviceGetMemoryInfo": f"0 {total} {free} {used + reserved}",
        "nvmlDeviceGetMemoryInfo_v2": f"0 {total} {reserved} {free} {used}",
        "nvmlDeviceGetCudaComputeCapability": "0 {} {}".format(*card.capability),
        "nvmlDeviceGetComputeRunningProcesses_v3": "0 " + " ".join(f"{pid} {mib * MIB}" for pid, mib in card.processes),
    }
    return (f"{function} {device} {answer}" for function, answer in (answers | own | card.answers).items())


def build(folder: Path) -> Path:
    """Compile the double."""
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library


def install(library: Path, answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have NVIDIA's own Python library call that shared library, as if the loader had found it."""
    import pynvml

    monkeypatch.setenv("NVML_DOUBLE", str(answers))
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
