"""The ports that a platform's firewall or security group has to know."""

from __future__ import annotations

from dataclasses import dataclass

from aisandbox.instance.choose.options.container import UNAVAILABLE
from aisandbox.manifest import Manifest, Option

OPENED_BY: dict[str, tuple[str, str | None]] = {
    "sandbox": ("sandbox", "public"),
    "http": ("domain", None),
    "https": ("domain", None),
}
"""Ports that a choice opens on the instance: the option and its value, None for any. templates/nftables does it."""


@dataclass(frozen=True)
class Door:
    """A port that can be reached from outside, always or after a choice."""

    name: str
    port: int
    label: str
    public: bool
    option: str | None = None
    """The option that opens it, for one that is not public."""
    value: str | None = None
    """The option's value that does; None for any."""

    @property
    def when(self) -> str:
        if self.public:
            return "always"
        return f"with `{self.option}: {self.value}`" if self.value else f"with a `{self.option}`"


def doors(manifest: Manifest, target: str | None = None) -> tuple[Door, ...]:
    """Every port that may be open on a machine, or on that target, in the manifest's order.

    Upstreams on loopback are none of them. A container has no SSH, and leaves HTTPS to its platform.
    """
    found = tuple(
        Door(name, port.port, port.label, port.public, *OPENED_BY.get(name, (None, None)))
        for name, port in manifest.ports.items()
        if port.public or name in OPENED_BY
    )
    if not contained(manifest, target):
        return found
    return tuple(door for door in found if door.name != "ssh" and door.option not in UNAVAILABLE)


def contained(manifest: Manifest, target: str | None) -> bool:
    """Whether the target's instances are containers, whose host has firewall, SSH and disks."""
    return target is not None and manifest.targets[target].kind == "container"


def options(manifest: Manifest, target: str) -> tuple[Option, ...]:
    """The options that can be had on a target."""
    without = UNAVAILABLE if contained(manifest, target) else {}
    return tuple(option for option in manifest.options if option.key not in without)


def services(manifest: Manifest) -> tuple[Door, ...]:
    """The public ones but SSH: what everybody can use who reaches the instance."""
    return tuple(door for door in doors(manifest) if door.public and door.name != "ssh")
