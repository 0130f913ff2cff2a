"""The sandbox on the appliance: its programs run in their slice, and what runs in it stays behind its walls."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import yaml

from aisandbox.builder.machine import Machine
from aisandbox.builder.sandbox import PARTS
from aisandbox.manifest import REPOSITORY
from tests.support.commands import OWN_USERS
from tests.support.machines import MANIFEST, main_pid, output, properties, status, wait_for

CATALOGUE = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())["services"]
UNITS = [f"{name}.service" for name, service in CATALOGUE.items() if service.get("slice") == "sandbox.slice"]
URL = f"http://127.0.0.1:{MANIFEST.ports['sandbox'].port}"
DATA, ETC, OPT = MANIFEST.paths.data, MANIFEST.paths.etc, MANIFEST.paths.opt
METADATA = "169.254.169.254"


def ready(machine: Machine) -> bool:
    return machine.run(f"curl --silent --fail '{URL}/ready?need={','.join(PARTS)}'", check=False).returncode == 0


@pytest.fixture
def sandbox(machine: Machine) -> Machine:
    wait_for("every part of the sandbox", lambda: ready(machine))
    return machine


def shell(machine: Machine, command: str) -> dict[str, Any]:
    """Run a command as a model would: through the API. Returns `output` and `exit_code`, and more."""
    body = shlex.quote(json.dumps({"command": command}))
    answer = json.loads(output(machine, f"curl --silent --json {body} {URL}/v1/shell/exec"))
    data: dict[str, Any] = answer["data"]
    assert data is not None, answer
    return data


def refused(machine: Machine, command: str) -> bool:
    return bool(shell(machine, command)["exit_code"])


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_runs_as_the_sandbox_in_its_slice(sandbox: Machine, unit: str) -> None:
    found = properties(sandbox, unit, "ActiveState", "Slice", "NoNewPrivileges")
    assert found == {"ActiveState": "active", "Slice": "sandbox.slice", "NoNewPrivileges": "yes"}
    # The server is another user, which acts as this one.
    real = "sandbox-server" if unit == "sandbox-api.service" else "sandbox"
    process = main_pid(sandbox, unit)
    users = output(sandbox, f"ps --no-headers -o euser:20=,ruser:20=,suser:20= -p {process}").split()
    assert users == ["sandbox", real, real]
    rights = output(sandbox, f"grep -E '^Cap(Inh|Prm|Eff|Amb):' /proc/{process}/status").split()[1::2]
    assert rights == ["0" * 16] * 4
    bounding = properties(sandbox, unit, "CapabilityBoundingSet")["CapabilityBoundingSet"]
    assert bounding == ("cap_setgid cap_setuid" if real == "sandbox-server" else "")


def test_the_server_is_out_of_reach(sandbox: Machine) -> None:
    before = main_pid(sandbox, "sandbox-api.service")
    for victim in ("$PPID", str(before)):
        for command in (
            f"kill -KILL {victim}",
            f"kill -TERM {victim}",
            f"cat /proc/{victim}/environ",
            f"prlimit --pid {victim} --nofile=9",
            f"python -c 'import os, sys; os.kill(int(sys.argv[1]), 9)' {victim}",
        ):
            assert refused(sandbox, command), command
    assert refused(sandbox, "pkill -KILL -f 'sandbox_api$'"), "it is not even seen"
    assert main_pid(sandbox, "sandbox-api.service") == before


def test_what_the_server_starts_is_the_sandbox_altogether(sandbox: Machine) -> None:
    """Whoever kept the server's user could signal it."""
    asked = [("shell/exec", {"command": "grep ^Uid: /proc/self/status | cut -f2-"}, "output")]
    asked += [("code/execute", {"language": name, "code": code}, "stdout") for name, code in OWN_USERS.items()]
    number = output(sandbox, "id -u sandbox")
    for route, body, field in asked:
        answer = json.loads(output(sandbox, f"curl --silent --json {shlex.quote(json.dumps(body))} {URL}/v1/{route}"))
        assert answer["data"][field].split() == [number] * 4, answer
    # The browser's driver is the server's own and runs nobody's code.
    server = output(sandbox, "ps --no-headers -o args= --User sandbox-server").splitlines()
    assert [line for line in server if "-m sandbox_api" not in line and "playwright/driver" not in line] == []


def test_the_slice_has_limits(sandbox: Machine) -> None:
    """Half of the memory is asked for; what systemd makes of it is seen only where the kernel can limit it."""
    found = properties(sandbox, "sandbox.slice", "CPUWeight", "IOWeight", "MemoryMax", "TasksMax")
    assert (found["CPUWeight"], found["IOWeight"], found["TasksMax"]) == ("50", "50", "4096")
    assert "MemoryMax=50%" in output(sandbox, "systemctl cat sandbox.slice")
    if found["MemoryMax"] != "infinity":
        total = 1024 * int(output(sandbox, "awk '/MemTotal/ {print $2}' /proc/meminfo"))
        assert int(found["MemoryMax"]) <= total / 2 + 4096


def test_status_lists_its_services(sandbox: Machine) -> None:
    assert {unit["name"] for unit in status(sandbox)["services"] if unit["active"] == "active"} >= set(UNITS)


@pytest.mark.parametrize(
    "path", ["/", "/v1/docs", "/vnc/index.html", "/jupyter/lab", "/code-server/", "/cdp/json/version", "/llms.txt"]
)
def test_every_address_answers(sandbox: Machine, path: str) -> None:
    output(sandbox, f"curl --silent --show-error --fail --location --output /dev/null {URL}{path}")


def test_commands_see_the_desktop(sandbox: Machine) -> None:
    assert shell(sandbox, "xdotool getdisplaygeometry")["output"].split() == ["1280", "800"]
    assert shell(sandbox, "xdotool search --onlyvisible --class chromium")["output"].split() != []


def test_commands_have_python_node_and_the_workspace(sandbox: Machine) -> None:
    found = shell(
        sandbox, "cd /workspace && echo hi > hi.txt && pwd && python -c 'import numpy' && node -p 1 && whoami"
    )
    assert found["output"].split() == ["/workspace", "1", "sandbox"]
    assert output(sandbox, f"cat {DATA}/workspace/hi.txt") == "hi"


@pytest.mark.parametrize(
    "place",
    [
        f"{DATA}/secrets",
        f"{DATA}/open-webui",
        f"{ETC}",
        f"{ETC}/secrets",
        "/etc/shadow",
        "/root",
        "/home",
        "/var/lib/cloud",
    ],
)
def test_what_belongs_to_others_cannot_be_read(sandbox: Machine, place: str) -> None:
    assert output(sandbox, f"sudo test -e {place} && echo there") == "there"
    assert shell(sandbox, f"ls -A {place}/ 2>/dev/null || cat {place} 2>/dev/null")["output"].strip() == ""


def test_secrets_are_found_nowhere(sandbox: Machine) -> None:
    for secret in output(sandbox, f"sudo sh -c 'cat {DATA}/secrets/*'").splitlines():
        found = shell(sandbox, f"grep -rls {secret} /etc /run /var /opt/aisandbox/lib /proc/[0-9]*/environ 2>/dev/null")
        assert found["output"].strip() == ""


@pytest.mark.parametrize("place", [str(OPT), "/usr/bin", "/etc", "/var/lib", f"{DATA}/models", "/run"])
def test_the_system_cannot_be_changed(sandbox: Machine, place: str) -> None:
    assert refused(sandbox, f"touch {place}/x")


def test_nobody_becomes_root(sandbox: Machine) -> None:
    assert refused(sandbox, "sudo -n true")
    assert refused(sandbox, "su -c true </dev/null")
    assert "NoNewPrivs:\t1" in shell(sandbox, "cat /proc/self/status")["output"]


def test_processes_of_others_are_not_seen(sandbox: Machine) -> None:
    assert set(shell(sandbox, "ps -e -o user= | sort -u")["output"].split()) == {"sandbox"}


def test_its_tmp_is_its_own_and_shared_by_its_programs(sandbox: Machine) -> None:
    shell(sandbox, "echo mine > /tmp/of-the-shell")
    assert output(sandbox, "test -e /tmp/of-the-shell || echo private") == "private"
    code = {"language": "python", "code": "print(open('/tmp/of-the-shell').read())"}
    answer = output(sandbox, f"curl --silent --json {shlex.quote(json.dumps(code))} {URL}/v1/code/execute")
    assert "mine" in answer


@pytest.mark.parametrize("name", [name for name in MANIFEST.ports if name.endswith("_upstream")])
def test_services_behind_the_gateway_refuse_it(sandbox: Machine, name: str) -> None:
    port = MANIFEST.ports[name].port
    output(sandbox, f"sudo curl --silent --output /dev/null http://127.0.0.1:{port}/")
    assert refused(sandbox, f"curl --silent --output /dev/null --max-time 5 http://127.0.0.1:{port}/")


def test_the_engines_inner_ports_refuse_it(sandbox: Machine) -> None:
    """Those on which its processes talk to each other: as many connections as one likes would end it."""
    listening = output(sandbox, "sudo ss --no-header --listening --tcp --numeric --extended").splitlines()
    uid = output(sandbox, "id --user vllm")
    ports = {line.split()[3].rsplit(":", 1)[1] for line in listening if f" uid:{uid} " in f"{line} "}
    assert str(MANIFEST.ports["api_upstream"].port) in ports
    asked = " ".join(f"(timeout 5 bash -c '</dev/tcp/127.0.0.1/{port}' && echo {port}) &" for port in sorted(ports))
    assert shell(sandbox, f"exec 2>/dev/null; {asked} wait")["output"].split() == []


def test_the_api_itself_is_open_to_it(sandbox: Machine) -> None:
    assert not refused(sandbox, f"curl --silent --fail http://127.0.0.1:{MANIFEST.ports['api'].port}/v1/models")


def test_it_writes_nothing_to_the_journal_in_another_name(sandbox: Machine) -> None:
    assert refused(sandbox, "logger --tag sshd --priority auth.emerg 'accepted from the sandbox'")
    assert "accepted from the sandbox" not in output(sandbox, "sudo journalctl --boot --identifier=sshd")


def test_the_clouds_metadata_is_out_of_reach(sandbox: Machine) -> None:
    """Here the machine plays the cloud: root reaches the address, the sandbox does not."""
    output(sandbox, f"sudo ip address add {METADATA}/32 dev lo")
    try:
        command = (
            f"sudo systemd-run --quiet --unit=cloud --service-type=exec python3 -m http.server 80 --bind {METADATA}"
        )
        output(sandbox, command)
        get = f"curl --silent --output /dev/null --max-time 5 http://{METADATA}/"
        output(sandbox, f"{get} --retry 5 --retry-connrefused")
        assert refused(sandbox, get)
    finally:
        output(sandbox, f"sudo systemctl stop cloud; sudo ip address del {METADATA}/32 dev lo")


@pytest.mark.parametrize("unit", UNITS)
def test_a_killed_program_comes_back(sandbox: Machine, unit: str) -> None:
    before = main_pid(sandbox, unit)
    output(sandbox, f"sudo kill -KILL {before}")
    wait_for(f"another {unit}", lambda: main_pid(sandbox, unit) not in (0, before))
    wait_for("every part of the sandbox", lambda: ready(sandbox))
