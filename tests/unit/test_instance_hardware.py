"""Looking at the machine, with a driver library of the test's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from aisandbox.instance import hardware
from aisandbox.instance.hardware import Hardware
from tests.support import appliance

Find = Callable[..., Hardware]
MIB = 1024**2
MIB_OF_L4 = 23034
MIB_KEPT = 464
"""What the driver keeps of each GPU for itself."""


class NVMLError(Exception):
    pass


def driver(
    *gpus: tuple[str, int, list[int]],
    version: str = "580.95.05",
    cuda: int = 13000,
    fault: str = "",
    silent: bool = False,
) -> SimpleNamespace:
    """As much of `pynvml` as we use. A GPU is its name, MiB and capability; a `silent` driver tells only the basics."""

    def init() -> None:
        if fault:
            raise NVMLError(fault)

    def detail(value: object) -> object:
        if silent:
            raise NVMLError("Function Not Found")
        return value

    def memory(gpu: tuple[str, int, list[int]], version: int | None = None) -> object:
        if version is None:
            return SimpleNamespace(total=gpu[1] * MIB)
        return detail(SimpleNamespace(total=gpu[1] * MIB, reserved=MIB_KEPT * MIB))

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: version,
        nvmlSystemGetCudaDriverVersion_v2=lambda: detail(cuda),
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=lambda index: gpus[index],
        nvmlDeviceGetName=lambda gpu: gpu[0],
        nvmlMemory_v2=0x2000028,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetCudaComputeCapability=lambda gpu: detail(gpu[2]),
    )


L4 = ("NVIDIA L4", MIB_OF_L4, [8, 9])
H100 = ("NVIDIA H100 80GB HBM3", 81559, [9, 0])
V100 = ("Tesla V100-SXM2-16GB", 16384, [7, 0])


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    def look(library: SimpleNamespace | None, flavour: str = "cuda") -> Hardware:
        monkeypatch.setitem(sys.modules, "pynvml", library)
        return hardware.find(appliance.make(tmp_path, flavour))

    return look


def test_every_fact_of_the_gpus_and_the_smallest_one_counts(find: Find) -> None:
    found = find(driver(H100, L4))
    assert [gpu.name for gpu in found.gpus] == [H100[0], L4[0]]
    assert found.gpu_memory_gib == pytest.approx(22.04, abs=0.05), "what CUDA sees"
    assert found.capability == (8, 9)
    assert (found.driver, found.cuda, found.fault) == ("580.95.05", "13.0", None)


def test_memory_and_processors_of_the_machine(find: Find) -> None:
    found = find(None, "cpu")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    assert found.ram_gib == pytest.approx(total, abs=0.1)
    assert found.cpus == len(os.sched_getaffinity(0))


def test_a_driver_too_old_for_cuda_is_a_fault_of_its_own(find: Find) -> None:
    found = find(driver(L4, version="535.261.03", cuda=12020))
    assert found.fault == "driver 535.261.03 is too old for CUDA 13: needs 580 or newer"
    assert "nvidia-driver-cuda" in str(found.fix) and "reboot" in str(found.fix)
    assert found.cuda == "12.2"


def test_a_gpu_too_old_for_cuda_is_named(find: Find) -> None:
    found = find(driver(L4, V100))
    assert "Tesla V100" in str(found.fault) and "7.0" in str(found.fault) and "7.5" in str(found.fault)


def test_a_driver_without_a_gpu(find: Find) -> None:
    found = find(driver())
    assert "finds no GPU" in str(found.fault)
    assert found.gpus == ()


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("NVML Shared Library Not Found", "install its driver"),
        ("Driver Not Loaded", "modprobe nvidia"),
        ("RM has detected an NVML/RM version mismatch.", "reboot"),
        ("GPU is lost", "nvidia-smi"),
    ],
)
def test_errors_of_the_library_are_told_with_what_helps(find: Find, error: str, fix: str) -> None:
    found = find(driver(L4, fault=error))
    assert (found.gpus, found.gpu_memory_gib, found.fault) == ((), 0, error)
    assert fix in str(found.fix)


def test_what_the_driver_does_not_tell_is_left_out(find: Find) -> None:
    found = find(driver(L4, silent=True))
    assert (found.gpus[0].capability, found.cuda, found.fault) == (None, None, None)
    assert found.gpu_memory_gib == pytest.approx(22.5, abs=0.05), "all of it, where the driver's part is not told"


def test_the_cpu_flavour_does_not_look_for_gpus(find: Find) -> None:
    found = find(None, "cpu")
    assert (found.flavour, found.gpus, found.fault) == ("cpu", (), None)


@pytest.mark.parametrize(("limit", "expected"), [("2147483648\n", 2.0), ("max\n", None), (str(2**60), None)])
def test_a_containers_memory_ends_at_its_limit(tmp_path: Path, limit: str, expected: float | None) -> None:
    places = appliance.make(tmp_path / "root")
    file = places.root / "sys" / "fs" / "cgroup" / "memory.max"
    file.parent.mkdir(parents=True)
    before = hardware.find(places).ram_gib
    file.write_text(limit)
    assert hardware.find(places).ram_gib == (expected or before)


def test_a_container_without_a_gpu_says_how_it_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = appliance.make(tmp_path / "root", "cuda")
    (places.opt / "container").mkdir()
    (places.opt / "container" / "programs.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "pynvml", driver(fault="NVML Shared Library Not Found"))
    assert "--gpus all" in (hardware.find(places).fix or "")
