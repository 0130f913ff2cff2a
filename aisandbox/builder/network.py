"""The network of local machines: one bridge on the host, addresses of our own, NAT to the outside."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aisandbox.builder.errors import BuildError

BRIDGE = "aisandbox0"
INTERFACE = "host0"
"""systemd-nspawn's name for the interface inside the machine."""
NO_ROUTERS = Path(f"/etc/systemd/network/10-cloud-init-{INTERFACE}.network.d/no-routers.conf")
"""Beside the file that cloud-init writes, which cannot say it: nobody advertises routes on the bridge, and
systemd-networkd would hold up the boot for 14 seconds waiting for them."""
NO_ROUTERS_SETTINGS = "[Network]\nIPv6AcceptRA=no\n"
CANDIDATES = tuple(ipaddress.IPv4Network(f"10.213.{third}.0/24") for third in (77, 78, 79, 80))
LEASES = Path("/run/aisandbox-build/leases")
INTERFACES = Path("/sys/class/net")
LINGER_SECONDS = 10.0
"""How long a machine waits for its own interface to go before it takes another address."""
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
    """Make the bridge and its NAT when they are not there; safe to repeat, and for several processes at once.

    Raises:
        BuildError: every candidate network is in use.
    """
    with _leases():
        return _up()


def _up() -> Network:
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


def lease(former: str | None = None) -> str:
    """An address for a machine, held for this process until `hold` hands it on or `release` gives it back.

    Machines of all checkouts on the host share the bridge, so who has which address is kept outside of them.

    Args:
        former: address that a machine had when it was last running. It gets it again unless another one has it by now:
            cloud-init sets the network of an instance only once.

    Raises:
        BuildError: every candidate network is in use.
    """
    network = up()
    wanted = [former] if former and ipaddress.IPv4Address(former) in network.subnet else []
    deadline = time.monotonic() + LINGER_SECONDS
    while wanted and _lingers(wanted[0]) and wanted[0] not in _held() and time.monotonic() < deadline:
        time.sleep(0.1)
    with _leases():
        # The last machine may have ended meanwhile, and the network with it.
        network = _up()
        taken = _held()
        addresses = [*wanted, *(network.address(index) for index in range(200))]
        address = next(address for address in addresses if address not in taken and not _lingers(address))
        hold(address, os.getpid())
    return address


def machine_name(address: str) -> str:
    """Name of the machine with that address; it names the interface on the host too."""
    return f"ais-{address.rsplit('.', 1)[-1]}"


def _lingers(address: str) -> bool:
    """Whether the interface of the machine before is still there: the kernel removes it a while after a power cut."""
    return (INTERFACES / f"vb-{machine_name(address)}").exists()


def hold(address: str, pid: int) -> None:
    """Note that the process of that number has the address, for as long as it lives."""
    (LEASES / address).write_text(str(pid))


def release(address: str, pid: int) -> None:
    """Give back the address that the process of that number held. The network goes with its last machine."""
    with _leases():
        lease = LEASES / address
        if lease.exists() and lease.read_text() == str(pid):
            lease.unlink()
        if not _held():
            down()


@contextmanager
def _leases() -> Iterator[None]:
    LEASES.mkdir(parents=True, exist_ok=True)
    with (LEASES / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _held() -> set[str]:
    leases = [path for path in LEASES.iterdir() if not path.name.startswith(".")]
    return {path.name for path in leases if Path("/proc", path.read_text() or "none").exists()}


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
