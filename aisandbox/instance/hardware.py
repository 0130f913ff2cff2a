"""What this instance is: the flavour of its image, its memory, and the GPUs found."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

from aisandbox.instance import files
from aisandbox.instance.places import Places
from aisandbox.manifest import Part

GIB = 1024**3
CUDA = "13"
"""Release of CUDA that the image's vLLM is built for."""
LEAST_DRIVER = 580
"""First NVIDIA driver that serves that CUDA."""
LEAST_CAPABILITY = (7, 5)
"""Oldest compute capability that this CUDA still has code for (Turing, such as the T4)."""
GIVE_GPU = (
    "Start the container with its GPU (docker run --gpus all), on a host whose driver serves CUDA "
    f"{CUDA}: {LEAST_DRIVER} or newer."
)
INSTALL_DRIVER = (
    "sudo apt-get update && sudo apt-get install --yes nvidia-driver-cuda nvidia-kernel-open-dkms && sudo reboot"
)


class Gpu(Part):
    name: str
    memory_gib: float
    """Memory that CUDA sees: what the GPU has, less what its driver keeps."""
    capability: tuple[int, int] | None = None
    """CUDA's compute capability, (8, 9) for 8.9; None when the driver does not tell."""


class Hardware(Part):
    """The machine below the model server."""

    flavour: Literal["cpu", "cuda"]
    """Build of vLLM in the image."""
    ram_gib: float = 0
    cpus: int = 0
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    """Version of NVIDIA's driver."""
    cuda: str | None = None
    """Newest CUDA that this driver serves, such as 13.0."""
    fault: str | None = None
    """Why no GPU can be used."""
    fix: str | None = None
    """What ends the fault."""

    @property
    def gpu_memory_gib(self) -> float:
        """Memory of one GPU (of the smallest), in GiB; 0 without a GPU."""
        return min((gpu.memory_gib for gpu in self.gpus), default=0)

    @property
    def capability(self) -> tuple[int, int] | None:
        """Compute capability of the oldest GPU."""
        return min((gpu.capability for gpu in self.gpus if gpu.capability), default=None)


def find(places: Places) -> Hardware:
    """Look at the machine. The CPU flavour cannot use GPUs, so it does not look for any."""
    machine: dict[str, Any] = {"ram_gib": _ram_gib(places), "cpus": len(os.sched_getaffinity(0))}
    if (files.read_json(places.release) or {}).get("flavour") == "cpu":
        return Hardware(flavour="cpu", **machine)
    nvidia = _nvidia()
    if places.container and nvidia.get("fix"):
        nvidia["fix"] = GIVE_GPU
    return Hardware(flavour="cuda", **machine, **nvidia)


def _ram_gib(places: Places) -> float:
    """The machine's memory, or as much of it as a container may use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    groups = places.root / "sys" / "fs" / "cgroup"
    for limit in (groups / "memory.max", groups / "memory" / "memory.limit_in_bytes"):
        try:
            total = min(total, int(limit.read_text()))
        except (OSError, ValueError):
            continue  # there is none, or it says "max"
    return round(total / GIB, 1)


def _nvidia() -> dict[str, Any]:
    """What NVIDIA's management library tells, as fields of `Hardware`."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _explained(str(error))
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        cuda = _known(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        found: dict[str, Any] = {
            "driver": driver,
            "cuda": cuda and f"{cuda // 1000}.{cuda % 1000 // 10}",
            "gpus": tuple(
                Gpu(
                    name=str(pynvml.nvmlDeviceGetName(handle)),
                    memory_gib=round(_usable_memory(handle) / GIB, 1),
                    capability=_known(pynvml.nvmlDeviceGetCudaComputeCapability, handle),
                )
                for handle in handles
            ),
        }
        return found | _unusable(driver, found["gpus"])
    except pynvml.NVMLError as error:
        return _explained(str(error))
    finally:
        pynvml.nvmlShutdown()


def _usable_memory(handle: Any) -> int:
    """Bytes of a GPU's memory that programs can have: all of it less what the driver keeps, where it tells that."""
    import pynvml

    told = _known(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    return int(told.total - told.reserved if told else pynvml.nvmlDeviceGetMemoryInfo(handle).total)


def _known(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None: an older driver does not know every question."""
    import pynvml

    try:
        return ask(*arguments)
    except pynvml.NVMLError:
        return None


def _unusable(driver: str, gpus: tuple[Gpu, ...]) -> dict[str, Any]:
    """The fault, if these GPUs cannot be used, and what ends it."""
    major = driver.partition(".")[0]
    if major.isdigit() and int(major) < LEAST_DRIVER:
        fault = f"driver {driver} is too old for CUDA {CUDA}: needs {LEAST_DRIVER} or newer"
        return {"fault": fault, "fix": f"Update the driver and reboot: {INSTALL_DRIVER}"}
    if not gpus:
        fault = f"driver {driver} runs, and finds no GPU"
        return {"fault": fault, "fix": "Deploy on a plan with an NVIDIA GPU. What the machine has: lspci -d 10de:"}
    for gpu in gpus:
        if gpu.capability and gpu.capability < LEAST_CAPABILITY:
            have, need = (".".join(map(str, pair)) for pair in (gpu.capability, LEAST_CAPABILITY))
            fault = f"{gpu.name} is too old for CUDA {CUDA}: it has compute capability {have}, needed is {need}"
            return {"fault": fault, "fix": "Deploy on a plan with a newer GPU: a T4, or anything later."}
    return {}


def _explained(error: str) -> dict[str, Any]:
    """The library's own error, and what helps against it."""
    if "Not Found" in error:
        fix = f"Deploy on a plan with an NVIDIA GPU. With one, install its driver: {INSTALL_DRIVER}"
    elif "mismatch" in error:
        fix = "The driver was updated while it was running: sudo reboot"
    elif "Not Loaded" in error or "communicate" in error:
        fix = "Load the driver: sudo modprobe nvidia. Why it is not loaded: sudo journalctl -k | grep -i nvidia"
    else:
        fix = "See: sudo nvidia-smi; sudo journalctl -k | grep -i nvidia"
    return {"fault": error, "fix": fix}
