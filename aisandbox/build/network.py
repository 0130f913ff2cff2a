"""The network of local machines: one bridge on the host, addresses of our own, NAT to the outside."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from aisandbox.build.errors import BuildError

BRIDGE = "aisandbox0"
INTERFACE = "host0"
"""systemd-nspawn's name for the interface inside the machine."""
NO_ROUTERS = Path(f"/etc/systemd/network/10-cloud-init-{INTERFACE}.network.d/no-routers.conf")
"""Beside the file that cloud-init writes, which cannot say it: nobody advertises routes on the bridge, and
systemd-networkd would hold up the boot for 14 seconds waiting for them."""
NO_ROUTERS_SETTINGS = "[Network]\nIPv6AcceptRA=no\n"
CANDIDATES = tuple(ipaddress.IPv4Network(f"10.213.{third}.0/24") for third in (77, 78, 79, 80))
COMMENT = ["-m", "comment", "--comment", "aisandbox"]


@dataclass(frozen=True)
class Network:
    """Addresses of the bridge's network."""

    subnet: ipaddress.IPv4Network

    @property
    def gateway(self) -> str:
        return str(self.subnet[1])

    def address(self, index: int) -> str:
        """Address of the machine of that index, from 0."""
        return str(self.subnet[2 + index])

    def network_config(self, address: str, nameservers: list[str]) -> str:
        """cloud-init's network configuration (version 2) for the machine's interface."""
        interface = {
            "addresses": [f"{address}/{self.subnet.prefixlen}"],
            "gateway4": self.gateway,
            "nameservers": {"addresses": nameservers},
        }
        return json.dumps({"version": 2, "ethernets": {INTERFACE: interface}})


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def _bridge_network() -> Network | None:
    links = json.loads(_ip("-json", "-4", "address", "show", "type", "bridge") or "[]")
    for link in links:
        if link.get("ifname") == BRIDGE and link.get("addr_info"):
            info = link["addr_info"][0]
            return Network(ipaddress.IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False))
    return None


def _free_subnet() -> ipaddress.IPv4Network:
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "main"))
    taken = [ipaddress.IPv4Network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    for subnet in CANDIDATES:
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise BuildError(
        f"no free network for local machines: all of {', '.join(map(str, CANDIDATES))} are routed elsewhere",
        "remove one of those routes (ip route), or boot with: make up VIA=qemu",
    )


def _rules(subnet: str) -> list[tuple[list[str], str, list[str]]]:
    return [
        (["-t", "nat"], "POSTROUTING", ["-s", subnet, "!", "-d", subnet, *COMMENT, "-j", "MASQUERADE"]),
        ([], "FORWARD", ["-i", BRIDGE, *COMMENT, "-j", "ACCEPT"]),
        ([], "FORWARD", ["-o", BRIDGE, *COMMENT, "-j", "ACCEPT"]),
    ]


def up() -> Network:
    """Make the bridge and its NAT when they are not there; safe to repeat.

    Raises:
        BuildError: every candidate network is in use.
    """
    network = _bridge_network()
    if not network:
        network = Network(_free_subnet())
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, check=False)
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("address", "add", f"{network.gateway}/{network.subnet.prefixlen}", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for table, chain, rule in _rules(str(network.subnet)):
        if subprocess.run(["iptables", "-w", *table, "-C", chain, *rule], capture_output=True, check=False).returncode:
            subprocess.run(["iptables", "-w", *table, "-I", chain, *rule], capture_output=True, check=True)
    return network


def down() -> None:
    """Remove the bridge and its NAT; does nothing when they are not there."""
    network = _bridge_network()
    if network:
        for table, chain, rule in _rules(str(network.subnet)):
            subprocess.run(["iptables", "-w", *table, "-D", chain, *rule], capture_output=True, check=False)
        _ip("link", "delete", BRIDGE)


def nameservers() -> list[str]:
    """DNS servers that a machine can reach: the host's, past a local stub resolver."""
    for source in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        try:
            lines = Path(source).read_text().splitlines()
        except OSError:
            continue
        servers = [line.split()[1] for line in lines if line.startswith("nameserver ")]
        reachable = [server for server in servers if not server.startswith("127.") and ":" not in server]
        if reachable:
            return reachable
    return []
