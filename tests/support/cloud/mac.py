"""The hardware address that systemd-nspawn gives a machine's interface, so that a cloud can tell it beforehand.

nspawn hashes the host's machine id and the machine's name (SipHash-2-4, with a key of its own), and 252 takes no other.
"""

from __future__ import annotations

from pathlib import Path

CONTAINER_KEY = bytes.fromhex("c3c4f919b557b21ce6cf1427039ceea2")
MASK = 2**64 - 1


def of(machine: str, machine_id: Path = Path("/etc/machine-id")) -> str:
    """Hardware address of the machine of that name on this host."""
    host = bytes.fromhex(machine_id.read_text().strip())
    digest = bytearray(siphash(host + machine.encode(), CONTAINER_KEY).to_bytes(8, "little")[:6])
    digest[0] = digest[0] & 0xFE | 0x02  # one machine's, and nobody's registered one
    return ":".join(f"{byte:02x}" for byte in digest)


def siphash(data: bytes, key: bytes) -> int:
    """SipHash-2-4."""
    low, high = (int.from_bytes(key[start : start + 8], "little") for start in (0, 8))
    state = (
        low ^ 0x736F6D6570736575,
        high ^ 0x646F72616E646F6D,
        low ^ 0x6C7967656E657261,
        high ^ 0x7465646279746573,
    )
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for start in range(0, len(padded), 8):
        word = int.from_bytes(padded[start : start + 8], "little")
        a, b, c, d = _round(_round((*state[:3], state[3] ^ word)))
        state = (a ^ word, b, c, d)
    state = (state[0], state[1], state[2] ^ 0xFF, state[3])
    for _ in range(4):
        state = _round(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _round(state: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    a, b, c, d = state
    a, c = (a + b) & MASK, (c + d) & MASK
    b, d = _rotate(b, 13) ^ a, _rotate(d, 16) ^ c
    a, c = (_rotate(a, 32) + d) & MASK, (c + b) & MASK
    d, b = _rotate(d, 21) ^ a, _rotate(b, 17) ^ c
    return a, b, _rotate(c, 32), d


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & MASK
