"""The first boot of the baked image, as a user finds it."""

from __future__ import annotations

import json
import re
import subprocess

import httpx
import pytest

from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import Machine
from aisandbox.instance.run import read_ahead
from tests.conftest import list_layers
from tests.support.machines import MANIFEST, output, properties, status, url, wait_for

OURS = "vllm open-webui nginx aisandbox-data aisandbox-configure aisandbox-model aisandbox-engine-sync aisandbox-status"


def test_cloud_init_is_done_and_content(machine: Machine) -> None:
    state = json.loads(output(machine, "cloud-init status --wait --format=json"))
    assert (state["status"], state["errors"]) == ("done", [])
    assert output(machine, "sudo grep --count --extended-regexp 'WARNING|ERROR' /var/log/cloud-init.log || true") == "0"


def test_systemd_is_content(machine: Machine) -> None:
    assert output(machine, "systemctl is-system-running --wait") == "running"
    assert output(machine, "systemctl --failed --plain --no-legend") == ""
    journal = output(machine, "sudo journalctl --boot --no-pager --output=cat")
    assert "ordering cycle" not in journal
    assert "deleted to break" not in journal
    assert output(machine, "sudo journalctl --boot --no-pager --priority=err --quiet") == ""


def test_our_units_are_correct(machine: Machine) -> None:
    units = [f"{name}.service" for name in OURS.split()]
    result = machine.run(f"systemd-analyze verify --man=no {' '.join(units)} 2>&1", check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_units_come_in_order(machine: Machine) -> None:
    def moment(unit: str, which: str) -> int:
        return int(properties(machine, unit, which)[which])

    configured = moment("aisandbox-configure", "ExecMainExitTimestampMonotonic")
    assert 0 < configured <= moment("aisandbox-model", "ExecMainStartTimestampMonotonic")
    assert configured <= moment("open-webui", "ExecMainStartTimestampMonotonic")


@pytest.mark.parametrize("unit", ["open-webui", "nginx"])
def test_nothing_waits_for_the_model(machine: Machine, unit: str) -> None:
    before = output(machine, f"systemctl list-dependencies --after --plain {unit}").split()
    assert "basic.target" in before
    assert {"vllm.service", "aisandbox-model.service", "cloud-final.service"} & set(before) == set()


def test_what_the_first_start_reads_is_read_ahead(machine: Machine) -> None:
    """Before anything of it starts, and without that anything waits for it."""
    began = "ExecMainStartTimestampMonotonic"
    unit = properties(machine, "aisandbox-read-ahead", "Result", began)
    assert unit["Result"] == "success"
    assert 0 < int(unit[began]) < int(properties(machine, "vllm", began)[began])
    said = output(machine, "sudo journalctl --boot --no-pager --output=cat --unit=aisandbox-read-ahead")
    asked = re.search(r"read-ahead: asked for (\d+) MiB", said)
    assert asked and 50 < int(asked[1]) <= read_ahead.MOST_BYTES >> 20


def test_all_is_well(machine: Machine) -> None:
    overview = status(machine)
    assert (overview["state"], overview["problems"]) == ("ready", [])
    assert overview["model"] == overview["serving"] == MANIFEST.embedded_model.id
    assert [phase["state"] for phase in overview["phases"]] == ["done"] * 3
    assert {service["restarts"] for service in overview["services"]} == {0}


def test_what_is_published_follows_a_service_within_2_seconds(machine: Machine) -> None:
    """The publisher hears of it from systemd, which it asks only now and then."""

    def state() -> str:
        services = httpx.get(url(machine, "chat", "/aisandbox/status.json"), timeout=5).json()["services"]
        return str(next(service["active"] for service in services if service["name"] == "auxiliary.service"))

    assert state() == "active"
    for command, expected in [("stop", "inactive"), ("start", "active")] * 3:
        output(machine, f"sudo systemctl {command} auxiliary.service")
        wait_for(f"auxiliary.service to be {expected}", lambda: state() == expected, 2)  # noqa: B023


def test_a_login_is_told_where_everything_is(machine: Machine) -> None:
    *command, target = machine.ssh_command()
    login = subprocess.run(
        [*command, "-tt", target], input="exit\n", capture_output=True, text=True, timeout=30, check=False
    ).stdout
    assert MANIFEST.product.name in login
    for expected in (url(machine, "chat", "/"), url(machine, "api", "/v1"), MANIFEST.embedded_model.id):
        assert expected in login


def test_the_image_is_as_it_was_baked(machine: Machine, image: Layer, layer_listings: dict[str, str]) -> None:
    after = list_layers(image)
    assert after.keys() == layer_listings.keys()
    for name, listing in after.items():
        assert set(listing.splitlines()) ^ set(layer_listings[name].splitlines()) == set()
