"""The whole appliance as one container: what stands in for the machine's systemd, journal and cloud-init."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aisandbox.instance.places import Places
    from aisandbox.manifest import Manifest


@dataclass(frozen=True)
class Inside:
    """What templates must know where no firewall stands between the sandbox and the services behind the gateway."""

    visitor_header: str
    """Name of the header by which the gateway names a visitor: only those who may know it can use it."""
    origins: Mapping[str, str]
    """Where the platform's proxy serves a port, by the port's name. It hides the name that a visitor's browser used."""

    @classmethod
    def of(cls, places: Places, manifest: Manifest, secrets: Mapping[str, str]) -> Inside:
        # Launchers of programs import this package, and have the standard library only.
        from aisandbox.instance import address as addresses

        mark = hashlib.sha256(f"visitor {secrets['webui_secret_key']}".encode()).hexdigest()
        found = {name: addresses.of_proxy(places, manifest.ports[name].port) for name in ("chat", "sandbox")}
        return cls(f"X-Aisandbox-Visitor-{mark[:16]}", {name: origin for name, origin in found.items() if origin})

    def pattern(self, name: str) -> str:
        """A port's origin as a regular expression; empty where none is known."""
        return re.escape(self.origins.get(name, ""))
