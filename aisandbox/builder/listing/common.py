"""The files that every target has."""

from __future__ import annotations

from aisandbox.builder.listing.examples import example
from aisandbox.builder.listing.files import File, Files, rendered
from aisandbox.builder.listing.tables import code
from aisandbox.manifest import Manifest


def files(manifest: Manifest, target: str) -> Files:
    """Descriptions, ports, release notes, and user-data for all that take it."""
    found = {
        "short.txt": File(f"{manifest.product.tagline}\n", "short description"),
        "long.md": rendered("common/long.md.j2", "long description, in Markdown", manifest, target),
        "ports.md": rendered(
            "common/ports.md.j2", "what a firewall or security group must let through", manifest, target
        ),
        "release-notes.md": rendered("common/release-notes.md.j2", "what is new", manifest, target),
    }
    if manifest.targets[target].kind != "container":
        use = "user-data with every choice, to be filled in"
        found["user-data.yaml"] = rendered("common/user-data.yaml.j2", use, manifest, target, example=example)
    return found


def index(manifest: Manifest, target: str, files: Files) -> File:
    """What to do with each of the files."""
    uses = [(code(name), file.use) for name, file in files.items()]
    return rendered("common/README.md.j2", "this list", manifest, target, uses=uses)
