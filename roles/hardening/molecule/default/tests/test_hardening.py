"""What sshd, nft and sysctl themselves make of our settings, and who reaches what with the firewall loaded."""

from __future__ import annotations

import re

import pytest
import yaml
from testinfra.host import Host

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY

PORTS = manifest.load().ports
PUBLIC = [port.port for port in PORTS.values() if port.public]
UPSTREAMS = [port.port for name, port in PORTS.items() if name.endswith("_upstream")]
DEFAULTS = yaml.safe_load((REPOSITORY / "roles" / "hardening" / "defaults" / "main.yml").read_text())
SYSCTL = DEFAULTS["hardening_sysctl"]

# In a network namespace of its own: the firewall, servers on these ports, and a connection to each as this user.
CONNECT = """
unshare --net sh -euc '
ip link set lo up
nft -f /etc/nftables.conf
python3 - {user} {ports}' <<'END'
import os, socket, sys
user, ports = int(sys.argv[1]), [int(port) for port in sys.argv[2:]]
servers = [socket.create_server(("127.0.0.1", port)) for port in ports]
os.setuid(user)
for port in ports:
    try:
        socket.create_connection(("127.0.0.1", port), 3)
        print("open")
    except ConnectionRefusedError:
        print("refused")
END
"""


def test_sshd_accepts_keys_only(host: Host) -> None:
    host.run("mkdir --parents /run/sshd")
    settings = host.run("sshd -T")
    assert settings.succeeded, settings.stderr
    assert {"passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin no"} <= set(
        settings.stdout.splitlines()
    )
    assert host.run("sshd -t").succeeded


def test_root_has_no_password(host: Host) -> None:
    assert host.user("root").password == "!"


def test_the_firewall_loads_and_starts_with_the_machine(host: Host) -> None:
    checked = host.run("nft --check --file /etc/nftables.conf")
    assert checked.succeeded, checked.stderr
    assert host.service("nftables").is_enabled


def test_only_public_ports_are_let_in(host: Host) -> None:
    assert _let_in(host) == set(PUBLIC)


def test_only_ssh_is_let_in_while_nothing_else_is_rendered(host: Host) -> None:
    assert _let_in(host, "mount --types tmpfs none /etc/aisandbox") == {PORTS["ssh"].port}


@pytest.mark.parametrize("account", ["root", "www-data", "vllm", "open-webui", "auxiliary"])
def test_the_gateway_and_the_services_reach_the_upstreams(host: Host, account: str) -> None:
    assert _connect(host, host.user(account).uid, UPSTREAMS) == ["open"] * len(UPSTREAMS)


@pytest.mark.parametrize("user", [65534, 1001, 998, 972])
def test_nobody_else_reaches_the_upstreams(host: Host, user: int) -> None:
    assert _connect(host, user, UPSTREAMS) == ["refused"] * len(UPSTREAMS)
    assert _connect(host, user, [PORTS["chat"].port, PORTS["api"].port]) == ["open", "open"]


def test_kernel_parameters_are_known(host: Host) -> None:
    # Yama is in the kernel of the image, but need not be in the builder's.
    known = host.check_output("sysctl --all --pattern %s", "|".join(SYSCTL))
    assert {line.split(" = ")[0] for line in known.splitlines()} >= set(SYSCTL) - {"kernel.yama.ptrace_scope"}
    for name, value in SYSCTL.items():
        assert host.file("/etc/sysctl.d/60-aisandbox.conf").contains(f"^{name} = {value}$")


def _let_in(host: Host, before: str = "true") -> set[int]:
    """Ports that the firewall lets in, loaded in namespaces of its own after this command."""
    rules = "nft --file /etc/nftables.conf && nft list table inet aisandbox"
    listed = host.check_output(f"unshare --net --mount sh -c '{before} && {rules}'")
    return {int(port) for ports in re.findall("tcp dport (.*) accept", listed) for port in re.findall(r"\d+", ports)}


def _connect(host: Host, user: int, ports: list[int]) -> list[str]:
    result = host.run(CONNECT.format(user=user, ports=" ".join(map(str, ports))))
    assert result.succeeded, result.stderr
    return list(result.stdout.split())
