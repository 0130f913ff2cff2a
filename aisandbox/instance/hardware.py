"""What this instance is: the flavour of its image, and the GPUs found."""

from __future__ import annotations

from typing import Literal

from aisandbox.instance import files
from aisandbox.instance.places import Places
from aisandbox.manifest import Part

GIB = 1024**3


class Gpu(Part):
    name: str
    memory_gib: float


class Hardware(Part):
    """The machine below the model server."""

    flavour: Literal["cpu", "cuda"]
    """Build of vLLM in the image."""
    gpus: tuple[Gpu, ...] = ()
    fault: str | None = None
    """Why no GPU can be used, in the driver's words."""

    @property
    def gpu_memory_gib(self) -> float:
        """Memory of one GPU (of the smallest), in GiB; 0 without a GPU."""
        return min((gpu.memory_gib for gpu in self.gpus), default=0)


def find(places: Places) -> Hardware:
    """Look at the machine. The CPU flavour cannot use GPUs, so it does not look for any."""
    if (files.read_json(places.release) or {}).get("flavour") == "cpu":
        return Hardware(flavour="cpu")
    gpus, fault = _nvidia_gpus()
    return Hardware(flavour="cuda", gpus=gpus, fault=fault)


def _nvidia_gpus() -> tuple[tuple[Gpu, ...], str | None]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), str(error)
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(
                name=str(pynvml.nvmlDeviceGetName(handle)),
                memory_gib=round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / GIB, 1),
            )
            for handle in handles
        ), None
    except pynvml.NVMLError as error:
        return (), str(error)
    finally:
        pynvml.nvmlShutdown()
