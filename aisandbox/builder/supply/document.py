"""What both kinds of SBOM have in common."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from uuid import NAMESPACE_URL, UUID, uuid5

from aisandbox import manifest
from aisandbox.builder.supply.inventory import Inventory

TOOL = "aisandbox-build"


@dataclass(frozen=True)
class Document:
    """An inventory of something that has a name, as of a time that does not change from one writing to the next."""

    inventory: Inventory
    subject: str
    """Such as `aisandbox-0.1.0-cpu`."""
    created: datetime
    container: bool = False

    @property
    def digest(self) -> str:
        """Of all that is written: the same content gives the same document, under the same number."""
        content = [self.inventory.to_json(), self.subject, self.created.isoformat(), self.container]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def uuid(self) -> UUID:
        return uuid5(NAMESPACE_URL, self.namespace)

    @property
    def namespace(self) -> str:
        return f"{manifest.load().product.support_url}/spdx/{self.subject}-{self.digest[:32]}"
