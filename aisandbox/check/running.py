"""The running machine: its units, ports, firewall and secrets."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator

from aisandbox.check import sockets
from aisandbox.check.model import Finding, NotCheckedError, Subject, check

BOTH = ("image", "instance")
CLIENTS = {68, 546}
"""Ports of UDP where answers to the machine's own DHCP requests arrive."""


@check(
    "No unit has failed",
    why="What fails on the builder fails on every instance.",
    fix="systemctl --failed, then journalctl --unit=NAME",
    sources=("image-builder", "Home Assistant OS"),
    stages=BOTH,
    live=True,
)
def failed_units(subject: Subject) -> Iterator[Finding]:
    for line in subject.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).splitlines():
        if words := line.split():
            if len(words) < 4:
                raise NotCheckedError(f"systemctl says: {line[:200]}")
            yield Finding(words[0], "has failed")


@check(
    "No ordering cycle was broken at boot",
    why="systemd left out a unit to break it, and says so only in the journal.",
    fix="journalctl --boot --grep 'ordering cycle'",
    sources=("Home Assistant OS",),
    stages=BOTH,
    live=True,
)
def broken_cycles(subject: Subject) -> Iterator[Finding]:
    told = subject.run(
        ["journalctl", "--boot", "--quiet", "--no-pager", "--output=cat", "--grep=ordering cycle", "_PID=1"]
    )
    for line in told.splitlines():
        yield Finding("/etc/systemd/system", line.strip()[:200])


@check(
    "Only the product's ports can be reached",
    why="What listens on more than loopback is reached by everybody whom the platform's firewall lets in.",
    fix="let it listen on 127.0.0.1, or name the port as public in marketplace.yaml",
    sources=("stricter than the vendors",),
    stages=BOTH,
    live=True,
)
def listening_ports(subject: Subject) -> Iterator[Finding]:
    tables = {name: subject.tree.text(f"/proc/net/{name}") or "" for name in ("tcp", "tcp6", "udp", "udp6")}
    for table, text in tables.items():
        for address, port in sockets.waiting(table, text):
            answers = table.startswith("udp") and port in CLIENTS
            if not answers and not address.is_loopback and port not in subject.settings.ports:
                yield Finding(f"{table}/{port}", f"listens on {address}")
    if not any(text.splitlines()[1:] for text in tables.values()):
        raise NotCheckedError("/proc/net could not be read")


@check(
    "The firewall is up",
    why="Rules that were not loaded keep nobody out.",
    fix="systemctl restart nftables",
    sources=("DigitalOcean 5",),
    stages=("instance",),
    live=True,
)
def firewall_rules(subject: Subject) -> Iterator[Finding]:
    rules = subject.run(["nft", "list", "ruleset"])
    if "Operation not permitted" in rules:
        raise NotCheckedError("the kernel's rules may not be read here")
    if not re.search(r"hook input\b[^\n]*policy drop", rules):
        yield Finding("/etc/nftables.conf", "no rules are loaded that drop what comes in")


@check(
    "Secrets are root's alone",
    why="Every service could read what belongs to another, or to you.",
    fix="chown root:root and chmod 600 the file (700 a folder)",
    sources=("Akamai", "nexus-gateway"),
    stages=("instance",),
)
def secret_permissions(subject: Subject) -> Iterator[Finding]:
    etc, data = subject.settings.etc, subject.settings.data
    places = (f"{etc}/*.env", f"{etc}/options*.yaml", f"{etc}/metadata.json", f"{etc}/secrets", f"{etc}/secrets/*")
    for entry in subject.tree.glob(
        *places, f"{data}/secrets", f"{data}/secrets/*", f"{data}/tls", "/etc/ssh/ssh_host_*_key"
    ):
        if entry.uid or entry.mode & 0o077:
            yield Finding(entry.path, f"{stat.filemode(entry.mode)}, owner {entry.uid}")


@check(
    "The instance has keys of its own",
    why="Without SSH host keys nobody can log in; without a machine id DHCP and the journal do not work.",
    fix="ssh-keygen -A; systemd-machine-id-setup",
    sources=("stricter than the vendors",),
    stages=("instance",),
)
def own_identity(subject: Subject) -> Iterator[Finding]:
    if not any(entry.size for entry in subject.tree.glob("/etc/ssh/ssh_host_*_key")):
        yield Finding("/etc/ssh", "has no host keys")
    if not re.fullmatch(r"[0-9a-f]{32}", (subject.tree.text("/etc/machine-id") or "").strip()):
        yield Finding("/etc/machine-id", "is not set")
