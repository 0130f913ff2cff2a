"""Steps that the flows of all clouds have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import yaml

from aisandbox.builder.errors import BuildError
from aisandbox.manifest import REPOSITORY
from tests.support import machines
from tests.support.cloud.hypervisor import Instance
from tests.support.machines import Visitor, status, url, wait_for

PROGRAM = """
import json, sys
from aisandbox.builder import targets
from aisandbox.builder.progress import Phases
with Phases() as phases:
    targets.bake(sys.argv[1], "cpu", phases, extra=json.loads(sys.argv[2]))
"""
STARTED = "TASK [Run]"


def log(target: str) -> Path:
    """Where Packer's output goes."""
    return REPOSITORY / "build" / "log" / f"{target}.log"


def write_playbook(path: Path, command: str) -> Path:
    """A playbook of one command, for bakes that need not become an appliance: what ends a bake finds nothing to do."""
    seal = "mkdir -p /run/aisandbox-bake && echo true >/run/aisandbox-bake/seal"
    tasks = [
        {"name": "Leave nothing to the end", "ansible.builtin.shell": seal},
        {"name": "Run", "ansible.builtin.command": command},
    ]
    path.write_text(yaml.safe_dump([{"hosts": "image", "gather_facts": False, "tasks": tasks}]))
    return path


@contextmanager
def start_bake(
    target: str, variables: Mapping[str, str], credentials: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A bake as a process of its own, from when it has come to its playbook."""
    log(target).unlink(missing_ok=True)
    command = [sys.executable, "-c", PROGRAM, target, json.dumps(dict(variables))]
    process = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **credentials}, preexec_fn=_heed_interrupts)
    try:
        wait_for("the playbook", lambda: process.poll() is not None or STARTED in _read(log(target)), 120)
        assert process.poll() is None, _read(log(target))
        yield process
    finally:
        process.kill()
        process.wait()


def _heed_interrupts() -> None:
    """What a shell starts in the background ignores interrupts, and so does all below it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def kill_packer(pid: int) -> None:
    """Kill the Packer of the bake that is the process of that number, with all that it has started.

    Stopped first, none of them has time to clean up after another one's end.
    """
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in _below(pid):
            with suppress(ProcessLookupError):
                os.kill(process, number)


def _below(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text().split()]
    return [*children, *(process for child in children for process in _below(child))]


def wait_until_ready(*instances: Instance) -> None:
    """Wait until chat and API of all of them answer, and their users can log in."""
    for instance in instances:
        try:
            machines.wait_until_ready(instance)
            instance.wait_for_ssh(30)
        except (TimeoutError, BuildError):
            # Somebody who cannot log in has the machine's disk only.
            print(_read(instance.directory / "upper/var/log/cloud-init.log")[-20000:])
            print(machines.journal(instance))
            raise


def serves(instance: Instance, model: str, name: str) -> None:
    """Assert that API and chat page answer with this model by this name, and that nothing was wrong with the choice."""
    overview = status(instance)
    assert (overview["model"], overview["serving"], overview["problems"]) == (model, model, [])
    assert httpx.get(url(instance, "api", "/v1/models")).json()["data"][0]["id"] == name
    body = {"model": name, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
    assert httpx.post(url(instance, "api", "/v1/completions"), json=body, timeout=60).status_code == 200
    assert Visitor(instance).ask(name, "Who are you?")


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
