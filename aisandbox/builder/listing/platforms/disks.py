"""Disk images: nothing but the user-data that every target has."""

from __future__ import annotations

from aisandbox.builder.listing.files import Files
from aisandbox.manifest import Manifest


def files(_manifest: Manifest, _target: str) -> Files:
    return {}
