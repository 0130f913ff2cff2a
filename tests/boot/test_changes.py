"""`aisandbox configure` on the machine: changes are served, and nothing happens when nothing changes."""

from __future__ import annotations

import httpx

from aisandbox.builder.machine import Machine
from tests.support.machines import MANIFEST, main_pid, output, url, wait_for, wait_until_ready

SERVICES = ("vllm", "open-webui", "nginx")


def test_a_second_configure_changes_nothing(machine: Machine) -> None:
    def state() -> tuple[list[int], str]:
        listing = (
            "sudo find /etc/aisandbox /var/lib/aisandbox/secrets /run/aisandbox/resolved.json -printf '%p %T@ %i\\n'"
        )
        return [main_pid(machine, service) for service in SERVICES], output(machine, listing)

    before = state()
    assert output(machine, "sudo aisandbox configure") == "Nothing changed."
    assert state() == before


def test_a_bad_value_changes_nothing(machine: Machine) -> None:
    result = machine.run("sudo aisandbox configure --model 'not a model'", check=False)
    assert result.returncode == 2
    assert "is not a valid model" in result.stderr and "Nothing was changed." in result.stderr
    assert output(machine, "sudo aisandbox configure") == "Nothing changed."


def test_configure_needs_root(machine: Machine) -> None:
    result = machine.run("aisandbox configure --set served_name=x", check=False)
    assert (result.returncode, "sudo" in result.stderr) == (1, True)


def test_a_change_is_served_and_can_be_undone(machine: Machine) -> None:
    def served() -> list[str]:
        try:
            return [model["id"] for model in httpx.get(url(machine, "api", "/v1/models")).json()["data"]]
        except (httpx.TransportError, ValueError, KeyError):
            return []

    output(machine, "sudo aisandbox configure --set served_name=parrot")
    wait_for("the new name", lambda: served() == ["parrot"])
    output(machine, "sudo aisandbox configure --unset served_name")
    wait_for("the old name", lambda: served() == [MANIFEST.embedded_model.id])
    wait_until_ready(machine)
