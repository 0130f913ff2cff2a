"""Reads the kernel's tables of sockets (`/proc/net/tcp`, `udp` and their IPv6 forms)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

LISTENING = "0A"
"""State of a TCP socket that accepts connections."""
UNCONNECTED = "07"
"""State of a UDP socket that takes packets from anybody."""


class Socket(NamedTuple):
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int


def waiting(table: str, text: str) -> Iterator[Socket]:
    """The sockets of a table that wait for others.

    Args:
        table: its name, such as `tcp6`.
    """
    state = LISTENING if table.startswith("tcp") else UNCONNECTED
    for row in text.splitlines()[1:]:
        _, local, _, at, *_ = row.split()
        if at == state:
            address, port = local.split(":")
            yield Socket(_address(address), int(port, 16))


def _address(words: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as the kernel writes it: words of 32 bits, each in the order of this machine."""
    raw = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
    address = ipaddress.ip_address(raw)
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
