"""The engine of the flavour cuda: its libraries, its versions, its kernels and what it falls back to without them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from aisandbox.check import elf
from aisandbox.check.model import Finding, Subject, check
from aisandbox.check.tree import Entry

DRIVER = ("libcuda.so.*", "libnvidia-*.so.*", "libnvcuvid.so.*", "libcudla.so.*")
"""Libraries of NVIDIA's driver: of the machine, not of the environment."""
PLUGINS = (
    "*/torchcodec/libtorchcodec_*",  # one build for each FFmpeg; Debian's is among them
    "*/numba/np/ufunc/tbbpool.*",  # threads by Intel's library
    "*/nvidia/nvshmem/lib/nvshmem_*",  # transports between machines
    "*/nvidia/cu13/lib/libcufile_rdma.so.*",
)
"""Libraries that are loaded only where what they are for is there."""
SYSTEM = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/usr/local/lib")
TOOLKIT = ("bin/nvcc", "bin/ptxas", "nvvm/bin/cicc", "include/cuda_runtime.h", "lib64/libcudart.so")

TABLES = ("architectures", "defaults", "formats", "not_float16", "prescaled_ropes", "reasoning_parsers", "tool_parsers")
"""What the bake reads out of vLLM for every flavour (aisandbox/instance/serve/engine_tables.py)."""


def environment(subject: Subject) -> str | None:
    """Folder of vLLM's environment, where it is that of the flavour cuda."""
    envs = f"{subject.settings.opt}/envs"
    cuda = re.search(r"^nvidia-cuda-runtime==", subject.tree.text(f"{envs}/vllm.txt") or "", re.MULTILINE)
    return f"{envs}/vllm" if cuda else None


def versions(subject: Subject, root: str) -> dict[str, str]:
    """Versions of the distributions that are installed there, by normalised name."""
    found = {}
    for entry in subject.tree.glob(f"{root}/lib/python3*/site-packages/*.dist-info"):
        name, _, version = entry.path.rpartition("/")[2].removesuffix(".dist-info").partition("-")
        found[re.sub(r"[-._]+", "-", name).lower()] = version
    return found


@check(
    "The engine's libraries find what they link to",
    why="A library that is missing is noticed on the GPU only, when a model is loaded.",
    fix="correct locks/vllm-cuda.in or roles/vllm, and bake again",
    sources=("stricter than the vendors",),
    stages=("image", "instance"),
)
def engine_libraries(subject: Subject) -> Iterator[Finding]:
    root = environment(subject)
    if not root:
        return
    files = [entry for entry in subject.tree.entries if ".so" in entry.path.rpartition("/")[2] and not entry.is_folder]
    there = {entry.path.rpartition("/")[2] for entry in files if entry.path.startswith((f"{root}/", *SYSTEM))}
    asked: list[tuple[Entry, tuple[str, ...]]] = []
    for entry in files:
        path = subject.tree.find(entry.path) if entry.is_file and entry.path.startswith(f"{root}/") else None
        try:
            library = elf.read(path) if path else None
        except (elf.BrokenError, OSError) as error:
            yield Finding(entry.path, str(error))
            continue
        if library:
            there.add(library.soname)
            asked.append((entry, library.needed))
    for entry, needed in asked:
        plugin = any(fnmatchcase(entry.path, pattern) for pattern in PLUGINS)
        for name in needed:
            of_driver = any(fnmatchcase(name, pattern) for pattern in DRIVER)
            if name not in there and not of_driver and not plugin:
                yield Finding(entry.path, f"needs {name}")


@check(
    "The engine's parts have one version",
    why="FlashInfer refuses kernels of another version; CUDA's headers refuse a compiler of another.",
    fix="correct locks/vllm-cuda.in and locks/flashinfer-cuda.in, and lock them again",
    sources=("stricter than the vendors",),
    stages=("image", "instance"),
)
def engine_versions(subject: Subject) -> Iterator[Finding]:
    root = environment(subject)
    if not root:
        return
    found = versions(subject, root)
    flashinfer = found.get("flashinfer-python", "")
    for name, version in found.items():
        if re.match(r"flashinfer-(cubin|jit-cache)", name) and version.partition("+")[0] != flashinfer:
            yield Finding(root, f"{name} {version} beside flashinfer-python {flashinfer or 'that is missing'}")
    runtime = _release(found.get("nvidia-cuda-runtime", ""))
    for name in ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl", "nvidia-cuda-nvrtc"):
        if name in found and _release(found[name]) != runtime:
            yield Finding(root, f"{name} {found[name]} beside a CUDA runtime {found.get('nvidia-cuda-runtime')}")
    for name in found:
        if name.endswith("-cu12"):
            yield Finding(root, f"{name} is for CUDA 12")


def _release(version: str) -> str:
    return ".".join(version.split(".")[:2])


@check(
    "FlashInfer's kernels are in the image",
    why="Without them the first start of a model on Hopper and newer compiles for minutes, and may fetch from NVIDIA.",
    fix="make lock ONLY=flashinfer-cuda where FlashInfer's index (or FLASHINFER_INDEX) can be reached; bake again",
    sources=("vllm-project/vllm#47456",),
    severity="warning",
    stages=("image", "instance"),
)
def engine_kernels(subject: Subject) -> Iterator[Finding]:
    root = environment(subject)
    found = versions(subject, root) if root else {}
    for name in ("flashinfer-cubin", "flashinfer-jit-cache"):
        if root and name not in found:
            yield Finding(root, f"{name} is not installed")


@check(
    "The engine finds its compilers",
    why="Triton compiles at run time, and so does FlashInfer where a kernel is not in the image.",
    fix="bake the layers base and vllm again",
    sources=("vllm-project/vllm#49497",),
    stages=("image", "instance"),
)
def engine_compilers(subject: Subject) -> Iterator[Finding]:
    root = environment(subject)
    if not root:
        return
    toolkit = [f"{root}/cuda/{name}" for name in TOOLKIT]
    for path in ("/usr/bin/gcc", "/usr/bin/g++", f"{root}/bin/ninja", *toolkit):
        if not subject.tree.find(path):
            yield Finding(path, "missing")
    python = subject.tree.find(f"{root}/bin/python")
    version = python.name if python else "python3"
    headers = (f"/usr/include/{version}/Python.h", f"{subject.settings.opt}/python/*/include/{version}/Python.h")
    if not any(subject.tree.glob(*headers)):
        yield Finding(headers[0], "missing")


@check(
    "What vLLM knows is in the image",
    why="Without it a model that cannot be served is found out only after its download.",
    fix="correct aisandbox/instance/serve/engine_tables.py for this vLLM, and bake again",
    sources=("stricter than the vendors",),
    severity="warning",
    stages=("image", "instance"),
)
def engine_tables(subject: Subject) -> Iterator[Finding]:
    opt = subject.settings.opt
    # The layers below bring the engine alone.
    if not subject.tree.find(f"{opt}/release.json"):
        return
    path = f"{opt}/cache/vllm/tables.json"
    try:
        known = json.loads(subject.tree.text(path) or "{}")
    except ValueError:
        known = {}
    for name in TABLES:
        if not known.get(name):
            yield Finding(path, f"no table of {name}")
    if environment(subject) and not known.get("capability"):
        yield Finding(path, "no oldest GPU")
