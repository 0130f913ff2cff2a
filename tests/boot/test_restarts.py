"""Services come back when killed; the machine comes back from a reboot with everything it had."""

from __future__ import annotations

import httpx
import pytest

from aisandbox.builder.machine import Machine
from tests.support.machines import (
    MANIFEST,
    Visitor,
    boot_id,
    main_pid,
    output,
    reboot,
    status,
    url,
    wait_for,
    wait_until_ready,
)

# The main process only: systemd kills what is left, and the rest may be gone by the time that a signal is sent to it.
KILL_UNIT = "sudo systemctl kill --kill-whom=main --signal=KILL {unit}"
KILL_CHILDREN = "sudo pkill -KILL --parent {pid}"


def answer(machine: Machine) -> str:
    """What the model says to a fixed prompt."""
    body = {"model": MANIFEST.embedded_model.id, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
    response = httpx.post(url(machine, "api", "/v1/completions"), json=body, timeout=60)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


@pytest.mark.parametrize(
    ("unit", "kill"),
    [
        ("nginx", KILL_UNIT),
        ("open-webui", KILL_UNIT),
        ("vllm", KILL_UNIT),
        ("vllm", KILL_CHILDREN),
    ],
    ids=["nginx", "open-webui", "vllm", "engine core of vllm"],
)
def test_a_killed_service_comes_back(machine: Machine, unit: str, kill: str) -> None:
    before, said = main_pid(machine, unit), answer(machine)
    output(machine, kill.format(unit=unit, pid=before))
    wait_for(f"another {unit}", lambda: main_pid(machine, unit) not in (0, before))
    wait_until_ready(machine)
    assert answer(machine) == said
    Visitor(machine).history()


def test_a_reboot_keeps_everything_and_fetches_nothing(machine: Machine) -> None:
    def possessions() -> tuple[str, str, str]:
        """The instance's name, its secrets, and its models with the times of their last change."""
        return (
            output(machine, "cat /var/lib/cloud/data/instance-id"),
            output(machine, f"sudo sh -c 'cat {MANIFEST.paths.data}/secrets/*' | sha256sum"),
            output(machine, f"sudo find {MANIFEST.paths.data}/models/hub -type f -printf '%p %i %s %T@\\n' | sort"),
        )

    Visitor(machine).keep("before the reboot")
    before, boot, said = possessions(), boot_id(machine), answer(machine)
    reboot(machine)
    assert boot_id(machine) != boot
    assert possessions() == before
    assert answer(machine) == said
    assert "before the reboot" in Visitor(machine).history()
    assert output(machine, "systemctl is-system-running --wait") == "running"
    assert status(machine)["problems"] == []
