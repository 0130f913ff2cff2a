"""What is known about the machine, and what it is made for."""

from __future__ import annotations

from typing import Literal

from aisandbox.instance.problem import Problem
from aisandbox.manifest import Part

GIB = 1024**3
CUDA = "13"
"""Release of CUDA that the image's vLLM is built for: the lock's, as tests/unit/test_driver_version.py says."""
LEAST_DRIVER = 580
"""First NVIDIA driver that serves that CUDA. By hand, after NVIDIA's table: neither vLLM nor PyTorch knows it."""


class Gpu(Part):
    """One GPU that can be used, or one MIG slice of it."""

    name: str
    memory_gib: float
    """What the model server can have: without what the driver keeps for itself, and what other programs have taken."""
    capability: tuple[int, int] | None = None
    """CUDA's compute capability, (8, 9) for 8.9; None when the driver does not tell."""
    uuid: str | None = None
    """CUDA's name for it, such as GPU-… or MIG-…; None when the driver does not tell."""
    taken_gib: float = 0
    """Memory that other programs have taken."""


class Hardware(Part):
    """The machine below the model server."""

    flavour: Literal["cpu", "cuda"]
    """Build of vLLM in the image."""
    ram_gib: float = 0
    cpus: int = 0
    gpus: tuple[Gpu, ...] = ()
    """GPUs that the model server uses. They are all of one kind."""
    devices: tuple[str, ...] = ()
    """Their UUIDs, where the machine has others as well; empty when it has no others."""
    driver: str | None = None
    """Version of NVIDIA's driver."""
    cuda: str | None = None
    """Newest CUDA that this driver serves, such as 13.0."""
    fault: str | None = None
    """Why no GPU can be used."""
    fix: str | None = None
    """What ends the fault."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the GPUs and lasts, but does not stop the others from serving."""
    conditions: tuple[Problem, ...] = ()
    """What is wrong at this moment and may be over in the next one, such as heat. Only the doctor tells it: it may name
    programs."""

    @property
    def gpu_memory_gib(self) -> float:
        """Memory of one GPU (of the smallest), in GiB; 0 without a GPU."""
        return min((gpu.memory_gib for gpu in self.gpus), default=0)

    @property
    def capability(self) -> tuple[int, int] | None:
        """Compute capability of the oldest GPU."""
        return min((gpu.capability for gpu in self.gpus if gpu.capability), default=None)

    @property
    def free_share(self) -> float:
        """Part of a GPU's memory that other programs leave, of the GPU with least; 1 when they have taken none."""
        shares = (gpu.memory_gib / (gpu.memory_gib + gpu.taken_gib) for gpu in self.gpus if gpu.taken_gib)
        return min(shares, default=1.0)
