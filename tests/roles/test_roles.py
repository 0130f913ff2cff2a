"""Every role by molecule: syntax, converge, idempotence, testinfra; each over baked layers of its choice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aisandbox.manifest import REPOSITORY
from tests.roles.run import scenarios

TIMEOUT_S = 900
SHOWN_LINES = 80


def test_every_role_has_a_default_scenario() -> None:
    roles = {path.name for path in (REPOSITORY / "roles").iterdir()}
    assert roles == {name.removesuffix("/default") for name in scenarios() if name.endswith("/default")}


@pytest.mark.skipif(os.geteuid() != 0, reason="opening a root file system needs root")
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("scenario", scenarios())
def test_role(scenario: str) -> None:
    command = [sys.executable, "-m", "tests.roles.run", scenario]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # it ends its namespaces and removes its files
            output, _ = process.communicate(timeout=30)
            pytest.fail(f"not done in {TIMEOUT_S} s:\n{_tail(output)}")
    assert process.returncode == 0, _tail(output)


def _tail(output: str) -> str:
    return "\n".join(output.splitlines()[-SHOWN_LINES:])
