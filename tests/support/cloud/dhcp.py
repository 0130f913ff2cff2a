"""DHCP on the network of the local machines, for machines of clouds that hand out addresses so."""

from __future__ import annotations

import ctypes
import fcntl
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aisandbox.builder import network
from tests.support.bridge import bridge

LOCK = Path("/run/aisandbox-build/dhcp.lock")
PR_SET_PDEATHSIG = 1


class Dhcp:
    """The server while it runs. It answers only the machines that it has been told of."""

    def __init__(self, hosts: Path) -> None:
        self._hosts = hosts

    def expect(self, mac: str, address: str) -> None:
        """Give that address to the machine with that hardware address."""
        (self._hosts / address).write_text(f"{mac},{address}\n")

    def forget(self, address: str) -> None:
        (self._hosts / address).unlink(missing_ok=True)


@contextmanager
def serving(folder: Path) -> Iterator[Dhcp]:
    """A DHCP server. One test of the host at a time has it; others wait.

    Args:
        folder: for the server's files; must not be there.
    """
    hosts = folder / "hosts"
    hosts.mkdir(parents=True)
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with bridge() as net:
            server = subprocess.Popen(_command(folder, net), preexec_fn=_die_with_parent)
            try:
                yield Dhcp(hosts)
            finally:
                server.terminate()
                server.wait()


def _command(folder: Path, net: network.Network) -> list[str]:
    options = {"router": net.gateway, "dns-server": ",".join(network.nameservers())}
    return [
        "dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--user=root", "--port=0",
        f"--interface={network.BRIDGE}", "--except-interface=lo", "--bind-interfaces",
        "--dhcp-authoritative", f"--dhcp-range={net.subnet.network_address},static", "--no-ping", "--leasefile-ro",
        f"--dhcp-hostsdir={folder / 'hosts'}",
        *(f"--dhcp-option=option:{name},{value}" for name, value in options.items() if value),
        f"--log-facility={folder / 'dhcp.log'}", "--log-dhcp", "--pid-file",
    ]  # fmt: skip


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
