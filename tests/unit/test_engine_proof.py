"""The proof that an engine imports offline: its parts, on programs and modules of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aisandbox.builder import engine_proof, executions

QUIET = {"failed": {}, "asked": [], "flashinfer": True}


def found(answer: dict[str, object], started: set[str] | None = None) -> dict[str, list[str]]:
    results = engine_proof._results({**QUIET, **answer}, started or set())
    return {r.check.id: [f"{f.path}: {f.text}" for f in r.findings] for r in results if r.findings}


def test_an_engine_that_imports_quietly_passes() -> None:
    assert found({}, {"/opt/aisandbox/envs/vllm/bin/python3.11", "/usr/sbin/ldconfig", "/usr/bin/uname"}) == {}


def test_each_fault_is_told_apart() -> None:
    assert found({"failed": {"torch": "ImportError: no"}}) == {"engine-imports": ["torch: ImportError: no"]}
    assert found({}, {"/usr/bin/x86_64-linux-gnu-gcc-12"}) == {
        "engine-offline": ["/usr/bin/x86_64-linux-gnu-gcc-12: was started"]
    }
    assert list(found({"asked": ["socket.connect ('1.2.3.4', 443)"]})) == ["engine-offline"]
    assert list(found({"flashinfer": False})) == ["engine-flashinfer"]


def test_every_compiler_of_the_image_counts() -> None:
    """gcc's own names, and those of CUDA's toolkit."""
    assert {
        Path(shutil.which("gcc") or "gcc").resolve().name,
        "nvcc",
        "cicc",
        "ptxas",
        "ninja",
    } <= engine_proof.COMPILERS


def test_compiled_modules_are_named_as_python_imports_them(tmp_path: Path) -> None:
    for name in ("vllm/_C.abi3.so", "vllm/third_party/deep_gemm/_C.cpython-311-x86_64-linux-gnu.so", "torch/lib/x.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert engine_proof.compiled(tmp_path) == ["vllm._C", "vllm.third_party.deep_gemm._C"]


def test_the_settings_are_those_of_the_service_with_caches_that_can_be_written() -> None:
    settings = engine_proof.environment()
    assert settings["CUDA_HOME"] == "/opt/aisandbox/envs/vllm/cuda"
    assert settings["PATH"].split(":")[-1] == "/opt/aisandbox/envs/vllm/bin"
    assert settings["TRITON_CACHE_DIR"] == "/tmp/var/cache/aisandbox/triton"
    assert not any("{{" in value for value in settings.values())


def test_inside_modules_are_imported_and_heard(tmp_path: Path) -> None:
    modules = {
        "vllm/__init__.py": "",
        "vllm/utils/__init__.py": "",
        "vllm/utils/flashinfer.py": "import shutil\n\ndef has_flashinfer():\n    return bool(shutil.which('nvcc'))\n",
        "quiet.py": "",
        "broken.py": "raise RuntimeError('no device')\n",
        "parts.py": "def good():\n    pass\n\ndef bad():\n    raise OSError('no driver')\n",
        "leaving.py": "raise SystemExit(3)\n",
        "calling.py": (
            "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 443), 0.01)\nexcept OSError:\n    pass\n"
        ),
    }
    for name, content in modules.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    command = [sys.executable, "-", "quiet", "broken", "leaving", "calling", "gone", "parts:good", "parts:bad"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)}
    program = engine_proof.INSIDE.read_text()
    said = subprocess.run(command, input=program, capture_output=True, text=True, env=environment, check=True).stdout
    answer = json.loads(said.splitlines()[-1])
    assert list(answer["failed"]) == ["broken", "leaving", "gone", "parts:bad"]
    assert (
        answer["failed"]["broken"].startswith("RuntimeError: no device (")
        and "broken.py:1)" in answer["failed"]["broken"]
    )
    assert any("192.0.2.1" in line for line in answer["asked"])
    assert answer["flashinfer"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel tells only root what is started")
def test_the_kernel_tells_what_is_started_until_it_is_told_to_stop(tmp_path: Path) -> None:
    program, later = tmp_path / "program", tmp_path / "later"
    for path in (program, later):
        shutil.copy(shutil.which("true") or "/bin/true", path)
    started: set[str] = set()

    def take(file: int, process: int) -> None:  # noqa: ARG001 - whose it is does not matter here
        started.add(str(Path(f"/proc/self/fd/{file}").readlink()))

    stop = executions.watch(tmp_path, take)
    if not stop:
        pytest.skip("this kernel has no fanotify")
    subprocess.run([program], check=True)
    stop()
    subprocess.run([later], check=True)
    assert str(program) in started
    assert str(later) not in started
