"""What the user must be told: problems with their choice, and warnings about the instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aisandbox.manifest import Manifest, Part

if TYPE_CHECKING:
    from aisandbox.instance.access import Access


class Problem(Part):
    """Something that is not as the user asked for. The appliance works on without it."""

    option: str | None = None
    """Key of the option at fault, if one is."""
    value: str | None = None
    """What was given; secrets are masked."""
    reason: str
    fix: str
    source: str | None = None
    """Where it was given: a file, or a part of the user-data."""

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.option, self.value and f"'{self.value}'")))
        where = f" ({self.source})" if self.source else ""
        return f"{what}{where}: {self.reason}" if what or where else self.reason


class SecurityWarning(Part):
    """Something that the user should know and can change."""

    text: str
    fix: str


def warnings(manifest: Manifest, access: Access) -> tuple[SecurityWarning, ...]:
    """Security warnings that hold for the instance now."""
    open_ports = [port for name, port in manifest.ports.items() if port.public and name != "ssh"]
    return tuple(
        SecurityWarning(
            text=f"{port.label}: open to everyone who can reach port {port.port}, without a login.",
            fix=f"Allow port {port.port} only from your own addresses in the firewall of your provider.",
        )
        for port in open_ports
    )
