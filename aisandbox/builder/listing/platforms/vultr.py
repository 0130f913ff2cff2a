"""Vultr: the application's variables, its texts, and vendor data."""

from __future__ import annotations

from aisandbox.builder.listing import names
from aisandbox.builder.listing.files import File, Files, as_json, rendered
from aisandbox.manifest import Manifest


def files(manifest: Manifest, target: str) -> Files:
    # Never type Password, which Vultr generates for every instance: then nobody could leave a secret out.
    variables = [
        {"name": names.plain(option), "label": option.label, "type": "user_supplied", "required": False}
        for option in manifest.options
    ]
    return {
        "description.txt": File(f"{manifest.product.tagline}\n", "General tab: the one-line description"),
        "variables.json": as_json(variables, "Variables tab: one variable each, of type User Supplied, none required"),
        "readme.md": rendered("vultr/readme.md.j2", "Readme tab", manifest, target),
        "instructions.md": rendered("vultr/instructions.md.j2", "App Instructions tab", manifest, target),
        "imageless.txt": rendered(
            "vultr/imageless.txt.j2",
            "vendor data for a build from our snapshot; without it it explains itself",
            manifest,
            target,
        ),
    }
