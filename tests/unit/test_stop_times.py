"""What stops the sandbox waits for the hooks that its server promises to run."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from aisandbox.builder import sandbox
from aisandbox.manifest import REPOSITORY
from sandbox_api import serve
from sandbox_api.system import hooks

NEEDED_S = serve.PATIENCE_S + hooks.PATIENCE_S + hooks.GRACE_S


def read(name: str) -> Any:
    return yaml.safe_load((REPOSITORY / name).read_text())


@pytest.mark.parametrize("name", ["compose.yaml", "tests/data/listing/container/compose.yaml"])
def test_engines_wait_for_the_supervisor_and_that_for_the_hooks(name: str) -> None:
    supervisor_s = read("ansible/group_vars/all/services.yml")["services"]["sandbox-api"]["stop_s"]
    (service,) = read(name)["services"].values()
    assert service["stop_grace_period"] == f"{sandbox.STOP_SECONDS}s"
    assert NEEDED_S < supervisor_s < sandbox.STOP_SECONDS


@pytest.mark.parametrize(
    ("template", "setting", "places"),
    [("systemd/service.j2", "TimeoutStopSec=", 1), ("supervisord.conf.j2", "stopwaitsecs=", 2)],
)
def test_supervisors_take_the_time_from_the_catalogue(template: str, setting: str, places: int) -> None:
    lines = (REPOSITORY / "templates" / template).read_text().splitlines()
    assert [".stop_s | default(" in line for line in lines if line.startswith(setting)] == [True] * places
