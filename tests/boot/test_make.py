"""The everyday commands, on a machine that runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from aisandbox.builder.machine import Machine
from aisandbox.builder.up import INSTANCE
from aisandbox.manifest import REPOSITORY


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def addresses() -> Iterator[None]:
    """The addresses that somebody's own `make up` wrote stay."""
    before = INSTANCE.read_text() if INSTANCE.exists() else None
    yield
    if before is None:
        INSTANCE.unlink(missing_ok=True)
    else:
        INSTANCE.write_text(before)


def test_make_alone_prints_the_targets() -> None:
    told = make().stdout
    assert all(f"make {target} " in told for target in ("up", "down", "ssh", "status", "logs", "image", "test"))


def test_up_again_changes_nothing_and_tells_the_addresses(machine: Machine, addresses: None) -> None:
    before = machine.facts
    again = make("up", f"NAME={machine.name}")
    assert again.returncode == 0, again.stderr
    assert "already running" in again.stderr
    assert f"http://{machine.address}:3000" in again.stdout
    assert machine.facts == before
    instance = json.loads(INSTANCE.read_text())
    assert instance["api_url"] == f"http://{machine.address}:8000/v1"
    assert set(instance["ssh"]) == {"user", "host", "port", "key_file"}


def test_status_and_logs(machine: Machine) -> None:
    status = make("status", f"NAME={machine.name}")
    assert status.returncode == 0, status.stderr
    assert "ready" in status.stdout
    assert "engine:" in make("logs", f"NAME={machine.name}").stdout


def test_a_machine_that_does_not_run_says_how_to_start_it() -> None:
    status = make("status", "NAME=nobody")
    assert status.returncode != 0
    assert "make up" in status.stdout
    ssh = make("ssh", "NAME=nobody")
    assert "make up" in ssh.stderr
