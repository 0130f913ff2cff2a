"""Who gets in, what can be reached, and who can read the secrets."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from aisandbox.builder.machine import Machine
from aisandbox.instance.choose import configure
from tests.support.machines import MANIFEST, main_pid, output, url, wait_for

PUBLIC = {port.port for port in MANIFEST.ports.values() if port.public}
DATA = MANIFEST.paths.data


def can_connect(machine: Machine, port: int) -> bool:
    try:
        with socket.create_connection((machine.address, port), timeout=2):
            return True
    except OSError:
        return False


def ssh(machine: Machine, user: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Log in without ever asking a person."""
    *command, _ = machine.ssh_command()
    command += ["-o", "BatchMode=yes", *options, f"{user}@{machine.address}", "id", "--user", "--name"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_injected_key_opens_the_default_user_who_is_root_by_sudo(machine: Machine) -> None:
    assert ssh(machine, MANIFEST.os.default_user).stdout.strip() == MANIFEST.os.default_user
    assert output(machine, "sudo --non-interactive id --user") == "0"


@pytest.mark.parametrize("user", [MANIFEST.os.default_user, "root"])
def test_ssh_takes_no_password(machine: Machine, user: str) -> None:
    # A server that took passwords would name that method here.
    assert "Permission denied (publickey)." in ssh(machine, user, "-o", "PubkeyAuthentication=no").stderr


def test_ssh_takes_no_root(machine: Machine) -> None:
    assert "Permission denied" in ssh(machine, "root").stderr


def test_ssh_can_be_moved(machine: Machine) -> None:
    """Its owner is not shut out by our firewall."""
    own = "/etc/ssh/sshd_config.d/50-own.conf"
    try:
        output(machine, f"printf 'Port 22\\nPort 2222\\n' | sudo tee {own} && sudo systemctl reload ssh")
        wait_for("SSH at its other port", lambda: can_connect(machine, 2222), 20)
        output(machine, "sudo systemctl restart nftables ssh")
        wait_for("SSH after a restart", lambda: can_connect(machine, 2222) and can_connect(machine, 22), 20)
    finally:
        machine.run(f"sudo rm -f {own}; sudo systemctl restart ssh", check=False)
    rules = output(machine, "sudo nft list chain inet aisandbox guarded")
    assert "2222" not in rules and "dport 22" in rules


def test_no_account_has_a_password(machine: Machine) -> None:
    shadow = [line.split(":") for line in output(machine, "sudo cat /etc/shadow").splitlines()]
    assert [name for name, password, *_ in shadow if not password.startswith(("!", "*"))] == []


@pytest.mark.parametrize("name", MANIFEST.ports)
def test_public_ports_answer_and_no_others(machine: Machine, name: str) -> None:
    port = MANIFEST.ports[name]
    assert can_connect(machine, port.port) == port.public


def test_nothing_but_the_public_ports_listens_outside(machine: Machine) -> None:
    outside = set()
    for line in output(machine, "ss --no-header --listening --numeric --tcp --udp").splitlines():
        host, _, port = line.split()[4].rpartition(":")
        host = host.strip("[]").partition("%")[0].replace("*", "::")
        if not ipaddress.ip_address(host).is_loopback:
            outside.add((line.split()[0], int(port)))
    assert outside == {("tcp", port) for port in PUBLIC}


def test_the_firewall_guards_what_a_user_starts(machine: Machine) -> None:
    port = 9100
    output(machine, f"sudo systemd-run --quiet --unit=stray --service-type=exec python3 -m http.server {port}")
    try:
        output(machine, f"curl --silent --show-error --retry 5 --retry-connrefused http://{machine.address}:{port}/")
        assert not can_connect(machine, port)
    finally:
        output(machine, "sudo systemctl stop stray")


def secrets(machine: Machine) -> list[str]:
    return output(machine, f"sudo sh -c 'cat {DATA}/secrets/*'").splitlines()


@pytest.mark.parametrize("user", ["vllm", "open-webui", "auxiliary", "www-data", "nobody", MANIFEST.os.default_user])
def test_files_with_secrets_are_roots(machine: Machine, user: str) -> None:
    places = f"{DATA}/secrets /etc/aisandbox -name '*.env' -o -path '*/nginx/*' -type f -o -path '*/secrets/*' -type f"
    files = output(machine, f"sudo find {places}").splitlines()
    rendered = {"open-webui.env", "sandbox-api.env", "api-lock.conf"}
    assert {Path(file).name for file in files} >= {*configure.SECRETS, "hf_token", *rendered}
    for file in files:
        assert machine.run(f"sudo --user={user} test -r '{file}'", check=False).returncode == 1, file


def test_secrets_are_in_no_file_that_others_can_read(machine: Machine) -> None:
    values = [value.encode() for value in secrets(machine)]
    found = [
        path
        for folder in ("upper", "data")
        for path in walk(machine.directory / folder)
        if any(value in path.read_bytes() for value in values)
    ]
    assert {path.name for path in found} >= {*configure.SECRETS, "open-webui.env", "sandbox-api.env"}
    assert [path for path in found if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)] == []


def walk(folder: Path) -> list[Path]:
    """Regular files below the folder."""
    paths = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def test_secrets_are_not_told(machine: Machine) -> None:
    """Neither by the journal and the live facts, nor to the model server, nor to onlookers."""
    told = [
        output(machine, "sudo journalctl --no-pager --output=cat"),
        output(machine, "sudo find /run/aisandbox /run/cloud-init -type f -exec cat {} +"),
        output(machine, f"sudo cat /proc/{main_pid(machine, 'vllm')}/environ"),
        output(machine, f"curl --silent --fail {url(machine, 'chat', '/aisandbox/status.json')}"),
    ]
    assert [value for value in secrets(machine) if any(value in text for text in told)] == []
