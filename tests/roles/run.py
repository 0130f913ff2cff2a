"""Tests one role with molecule, as root: `python -m tests.roles.run ROLE[/SCENARIO] [MOLECULE-COMMAND ...]`.

The instance is an overlay of the layers that the scenario names, opened in namespaces of its own as in a bake. It lives
no longer than this program. The command is `test` unless another is given.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from aisandbox.builder import bake, container
from aisandbox.builder.layers import Store, load
from aisandbox.builder.progress import Phases
from aisandbox.manifest import REPOSITORY

FLAVOUR = "cpu"


def scenarios() -> list[str]:
    """All scenarios of all roles, as ROLE/SCENARIO."""
    files = (REPOSITORY / "roles").glob("*/molecule/*/molecule.yml")
    return sorted(f"{file.parents[2].name}/{file.parent.name}" for file in files)


def run(role: str, scenario: str, command: list[str]) -> int:
    """Open the scenario's root file system and run molecule in it; returns molecule's exit status."""
    definition = yaml.safe_load((REPOSITORY / "roles" / role / "molecule" / scenario / "molecule.yml").read_text())
    layers = load(FLAVOUR)
    tops = [layers[name] for name in definition["platforms"][0]["layers"]]
    with Phases() as phases:
        for top in tops:
            bake.bake(FLAVOUR, phases, until=top.name)
    work = REPOSITORY / "build" / "roles" / f"{role}-{scenario}"
    shutil.rmtree(work, ignore_errors=True)
    (work / "root").mkdir(parents=True)
    try:
        job = bake.job(f"test-{role.replace('_', '-')}", Store().lower_directories(*tops), FLAVOUR, work, work / "log")
        (work / "job.json").write_text(json.dumps(asdict(job)))
        inside = [sys.executable, "-m", "tests.roles.run", "--inside", str(work / "job.json"), role, scenario, *command]
        prefix = container.enter_namespaces()
        return subprocess.run([*prefix, *inside], cwd=REPOSITORY, env=container.environment(), check=False).returncode
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _inside(job_file: str, role: str, scenario: str, *command: str) -> int:
    job = container.Job(**json.loads(Path(job_file).read_text()))
    work = Path(job.work)
    variables = work / "variables.json"
    variables.write_text(json.dumps(job.variables))
    config = REPOSITORY / ".config" / "molecule" / "config.yml"
    with container.open_rootfs(job) as inventory:
        environment = {
            **os.environ,
            "AISANDBOX_INVENTORY": str(inventory),
            "AISANDBOX_VARIABLES": str(variables),
            "MOLECULE_EPHEMERAL_DIRECTORY": str(work / "molecule"),
            "MOLECULE_COMMAND_BORDERS": "false",
            "NO_COLOR": "1",
        }
        molecule = ["molecule", "--base-config", str(config), *command, "--scenario-name", scenario]
        directory = REPOSITORY / "roles" / role
        return subprocess.run(molecule, cwd=directory, env=environment, check=False).returncode


def main() -> int:
    if sys.argv[1] == "--inside":
        return _inside(*sys.argv[2:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    role, _, scenario = sys.argv[1].partition("/")
    return run(role, scenario or "default", sys.argv[2:] or ["test"])


if __name__ == "__main__":
    sys.exit(main())
