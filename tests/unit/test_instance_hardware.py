"""Looking at the machine, with a driver library of the test's own."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from aisandbox.instance import hardware
from tests.support import appliance


class NVMLError(Exception):
    pass


def driver(*memory_gib: float, fault: str = "") -> SimpleNamespace:
    """As much of `pynvml` as we use."""

    def init() -> None:
        if fault:
            raise NVMLError(fault)

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(memory_gib),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda index: f"NVIDIA {index}",
        nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(total=int(memory_gib[index] * hardware.GIB)),
    )


def test_the_smallest_gpu_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(79.6, 44.5))
    found = hardware.find(appliance.make(tmp_path, "cuda"))
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA 0", "NVIDIA 1"]
    assert (found.gpu_memory_gib, found.fault) == (44.5, None)


def test_a_missing_driver_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(fault="Driver Not Loaded"))
    found = hardware.find(appliance.make(tmp_path, "cuda"))
    assert (found.gpus, found.gpu_memory_gib, found.fault) == ((), 0, "Driver Not Loaded")


def test_the_cpu_flavour_does_not_look_for_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert hardware.find(appliance.make(tmp_path, "cpu")) == hardware.Hardware(flavour="cpu")
