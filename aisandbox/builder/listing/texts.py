"""Descriptions, fitted to a platform's limits by whole sentences, and release notes."""

from __future__ import annotations

import re

from aisandbox.manifest import Manifest


def fitted(text: str, characters: int) -> str:
    """As many whole sentences from the text's beginning as fit; nothing when its first one is too long."""
    result = ""
    for sentence in re.split(r"(?<=[.!?]) +", text):
        longer = f"{result} {sentence}".lstrip()
        if len(longer) > characters:
            break
        result = longer
    return result


def release_notes(manifest: Manifest) -> str:
    """What is new in the product's version, a line each."""
    return "\n".join(f"- {note}" for note in manifest.release.notes.get(manifest.product.version, ()))


def history(manifest: Manifest) -> str:
    """What is new in every version, the newest first, in Markdown."""
    versions = manifest.release.notes.items()
    return "\n".join(f"## {version}\n\n" + "".join(f"- {note}\n" for note in notes) for version, notes in versions)
