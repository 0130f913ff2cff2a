"""The image check on a booted machine: by SSH, and on itself."""

from __future__ import annotations

import json
from pathlib import Path

from aisandbox.builder.machine import Machine
from tests.support.checks import Report, command, findings, having
from tests.support.machines import output, wait_for


def on_the_machine(machine: Machine) -> Report:
    result = machine.run("sudo aisandbox check --json --offline", check=False)
    report: Report = json.loads(result.stdout)
    assert report["failed"] == bool(result.returncode)
    return report


def test_a_machine_passes_on_itself_and_by_ssh(machine: Machine, tmp_path: Path) -> None:
    own = on_the_machine(machine)
    assert having(own, "error") == set() and own["stage"] == "instance"
    assert having(own, "not checked") == {"security-updates"}
    by_ssh = command(f"{machine.user}@{machine.address}", "--key", machine.key, "--known-hosts", tmp_path / "hosts")
    assert {c["id"]: c["status"] for c in by_ssh["checks"]} == {c["id"]: c["status"] for c in own["checks"]}
    assert output(machine, "sudo sh -c 'ls /run/aisandbox-check* 2>/dev/null | wc -l'") == "0"


def test_faults_of_a_machine_are_found(machine: Machine) -> None:
    faults = {
        "listening-ports": "systemd-run --unit=planted -q python3 -m http.server 9999 --bind 0.0.0.0 --directory /run",
        "failed-units": "systemd-run --unit=failing -q false",
        "secret-permissions": "chmod 0644 /etc/aisandbox/open-webui.env",
        "login-shells": "useradd --system --shell /bin/bash planted",
    }
    mends = (
        "systemctl stop planted", "systemctl reset-failed failing",
        "chmod 0600 /etc/aisandbox/open-webui.env", "userdel planted",
    )  # fmt: skip
    try:
        for fault in faults.values():
            output(machine, f"sudo {fault}")
        wait_for("the server", lambda: "9999" in output(machine, "ss -Htln"), 20)
        report = on_the_machine(machine)
    finally:
        for mend in mends:
            machine.run(f"sudo {mend}", check=False)
    assert having(report, "error") == faults.keys()
    assert findings(report, "listening-ports") == ["tcp/9999"]
    assert findings(report, "failed-units") == ["failing.service"]


def test_only_root_may_ask(machine: Machine) -> None:
    result = machine.run("aisandbox check", check=False)
    assert result.returncode == 2 and "sudo aisandbox check" in result.stderr
