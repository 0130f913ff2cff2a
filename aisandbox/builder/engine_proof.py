"""Runs a baked engine of the flavour cuda as far as a machine without GPU can: everything is imported, offline.

In the baked root file system, read-only but for /tmp, in namespaces without a network. The kernel tells which programs
are started meanwhile. The driver's libraries, which a builder lacks, are stand-ins: their functions say "no device".
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from aisandbox import manifest
from aisandbox.builder import executions
from aisandbox.builder.errors import BuildError
from aisandbox.check import Check, Finding, Result, elf
from aisandbox.instance.serve.engine_start import MODULES, WORKERS

INSIDE = Path(__file__).with_name("engine_inside.py")
SERVICES = manifest.REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml"
LIBRARIES = (
    "torch",
    "triton",
    "triton.backends.nvidia.driver:CudaUtils",  # what Triton compiles first of all
    "xgrammar",
    "flashinfer",
    "flashinfer.fused_moe",
    "flashinfer.sampling",
    "cutlass",
    "tilelang",
    "tokenspeed_mla",
    "instanttensor",
    "fastsafetensors",
    "torchaudio",
    "torchvision",
    "cv2",
)
SCRATCH = "/tmp"  # noqa: S108 - a file system of its own, in the root file system
DRIVER = f"{SCRATCH}/driver"
COMPILED = "vllm/**/*.so"
"""Below site-packages: each is imported, too."""
STUBS = {"libcuda.so.1": 100, "libnvidia-ml.so.1": 9}
"""What the stand-ins for the driver's libraries answer: CUDA_ERROR_NO_DEVICE, NVML_ERROR_DRIVER_NOT_LOADED."""
COMPILERS = frozenset(
    {
        "as", "c++", "cc", "cc1", "cc1plus", "cicc", "clang", "clang++", "cmake", "collect2", "cpp", "g++", "gcc", "ld",
        "make", "ninja", "nvcc", "nvlink", "ptxas", "ptxas-blackwell",
        "x86_64-linux-gnu-g++-12", "x86_64-linux-gnu-gcc-12",
    }
)  # fmt: skip
FETCHERS = frozenset({"curl", "git", "pip", "pip3", "uv", "wget"})
LIMIT_S = 280
RULES = {
    "engine-imports": Check(
        "engine-imports",
        "Everything of the engine imports, without a network",
        "What does not import here does not on a GPU either.",
        "correct locks/vllm-cuda.in or roles/vllm, and bake again",
        lambda _: (),
    ),
    "engine-offline": Check(
        "engine-offline",
        "Nothing is compiled or fetched while it is imported",
        "It would be done at the first start, while the owner of a GPU waits and pays.",
        "see what starts it: the paths name program or address",
        lambda _: (),
    ),
    "engine-flashinfer": Check(
        "engine-flashinfer",
        "vLLM takes FlashInfer",
        "Without it sampling and attention are slower; vLLM says so in a warning that nobody reads.",
        "CUDA_HOME and PATH of vllm.service must name nvcc and ninja, or the kernels be baked",
        lambda _: (),
    ),
}


def results(root: Path) -> tuple[Result, ...]:
    """What came of it, as results of the image check. Call it inside `container.enter_namespaces()`.

    Args:
        root: a mounted root file system with the layer vllm of the flavour cuda in it.

    Raises:
        BuildError: the engine cannot be started at all.
    """
    opt = Path(f"{root}{manifest.load().paths.opt}")
    packages, cache = next(opt.glob("envs/vllm/lib/python3*/site-packages")), opt / "cache" / "triton"
    modules = [*LIBRARIES, *compiled(packages), *MODULES, *WORKERS[False]]
    # Ours are of another layer.
    modules = [name for name in modules if not name.startswith("aisandbox")]
    with _opened(root):
        _stand_in_for_the_driver(root, packages, cache)
        if cache.is_dir():  # as roles/appliance/templates/tmpfiles.conf.j2 does at the first boot
            shutil.copytree(cache, f"{root}{environment()['TRITON_CACHE_DIR']}")
        started: set[str] = set()
        prefix = len(str(root))

        def take(file: int, process: int) -> None:  # noqa: ARG001 - the other user asks whose it is
            started.add(str(Path(f"/proc/self/fd/{file}").readlink())[prefix:])

        stop = executions.watch(root, take)
        if not stop:
            raise BuildError("the kernel does not report what is started", "run it as root, on a kernel with fanotify")
        try:
            answer = _import(root, modules)
            _wait_for_the_rest(root)
        finally:
            stop()
    return tuple(_results(answer, started))


def compiled(packages: Path) -> list[str]:
    """vLLM's own compiled modules, as names to import."""
    found = (path.relative_to(packages) for path in sorted(packages.glob(COMPILED)))
    return [".".join((*path.parent.parts, path.name.split(".")[0])) for path in found]


def environment() -> dict[str, str]:
    """What vllm.service has on the flavour cuda (ansible/group_vars/all/services.yml)."""
    text = SERVICES.read_text().replace("{{ manifest.paths.opt }}", str(manifest.load().paths.opt))
    ours: dict[str, str] = yaml.safe_load(text)["vllm_environment_of"]["cuda"]
    caches = {name: f"{SCRATCH}{value}" for name, value in ours.items() if value.startswith("/var/cache/")}
    return {**ours, **caches, "HOME": SCRATCH, "VLLM_CACHE_ROOT": f"{SCRATCH}/vllm", "LD_LIBRARY_PATH": DRIVER}


def _results(answer: dict[str, Any], started: set[str]) -> Iterator[Result]:
    yield Result(RULES["engine-imports"], tuple(Finding(name, said) for name, said in answer["failed"].items()))
    wrong = sorted(path for path in started if path.rpartition("/")[2] in COMPILERS | FETCHERS)
    asked = tuple(Finding(text, "an address was asked for") for text in dict.fromkeys(answer["asked"]))
    yield Result(RULES["engine-offline"], (*(Finding(path, "was started") for path in wrong), *asked))
    found = () if answer["flashinfer"] else (Finding("vllm.utils.flashinfer", "has_flashinfer() is false"),)
    yield Result(RULES["engine-flashinfer"], found)


@contextmanager
def _opened(root: Path) -> Iterator[None]:
    """The root file system with what programs expect: /proc, /dev and a /tmp of its own."""
    for kind, place in (("proc", "/proc"), ("tmpfs", SCRATCH)):
        subprocess.run(["mount", "-t", kind, kind, f"{root}{place}"], check=True)
    subprocess.run(["mount", "--rbind", "/dev", f"{root}/dev"], check=True)
    try:
        yield
    finally:
        for place in ("/dev", SCRATCH, "/proc"):
            subprocess.run(["umount", "--lazy", f"{root}{place}"], check=True)


def _stand_in_for_the_driver(root: Path, *folders: Path) -> None:
    """Libraries in DRIVER with every function that others want of the driver's."""
    wanted: dict[str, set[str]] = {name: {"nvmlInit_v2", "cuInit"} for name in STUBS}
    for path in (path for folder in folders for path in folder.rglob("*.so*")):
        library = elf.read(path) if path.is_file() and not path.is_symlink() else None
        for name in set(library.needed if library else ()) & STUBS.keys():
            lines = _enter(root, "nm", "--dynamic", "--undefined-only", f"/{path.relative_to(root)}").splitlines()
            wanted[name] |= {line.split()[-1].partition("@")[0] for line in lines if line.strip()}
    Path(f"{root}{DRIVER}").mkdir()
    for name, answer in STUBS.items():
        letters = "cu" if name.startswith("libcuda") else "nvml"
        functions = sorted(symbol for symbol in wanted[name] if symbol.startswith(letters) and symbol.isidentifier())
        source = "".join(f"int {symbol}() {{ return {answer}; }}\n" for symbol in functions)
        output = f"{DRIVER}/{name}"
        _enter(root, "gcc", "-shared", "-w", f"-Wl,-soname,{name}", "-o", output, "-x", "c", "-", stdin=source)


def _import(root: Path, modules: list[str]) -> dict[str, Any]:
    python = f"{manifest.load().paths.opt}/envs/vllm/bin/python"
    said = _enter(root, "unshare", "--net", python, "-", *modules, stdin=INSIDE.read_text(), variables=environment())
    try:
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise BuildError(f"the engine's imports gave no answer: {said[-500:]}", "bake the layer vllm again") from error
    return answer


def _wait_for_the_rest(root: Path) -> None:
    """Until what was left running in the root file system has ended: some modules compile in the background."""
    end = time.monotonic() + LIMIT_S
    while inside := [process for process in Path("/proc").glob("[0-9]*") if _root_of(process) == str(root)]:
        if time.monotonic() > end:
            words = (inside[0] / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            raise BuildError(f"what the engine's imports have started does not end: {words}", "see what it waits for")
        time.sleep(0.2)


def _root_of(process: Path) -> str:
    try:
        return str((process / "root").readlink())
    except OSError:  # it has ended
        return ""


def _enter(root: Path, *command: str, stdin: str = "", variables: dict[str, str] | None = None) -> str:
    """What a command in the root file system prints."""
    environment = variables or {"PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [shutil.which("chroot") or "/usr/sbin/chroot", str(root), *command],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        timeout=LIMIT_S,
        check=False,
    )
    if result.returncode:
        words = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BuildError(f"{command[0]} failed in the root file system: {words}", "bake the layer vllm again")
    return result.stdout
