"""Akamai (Linode): the StackScript whose form hands the options over, and the body for its API."""

from __future__ import annotations

from aisandbox.builder.listing.files import File, Files, as_json, choices, rendered
from aisandbox.manifest import Manifest, Option

NOTHING = "default"
"""What the form offers for leaving a choice to the appliance: its lists have no empty entry."""


def files(manifest: Manifest, target: str) -> Files:
    script = rendered(
        "linode/stackscript.sh.j2",
        "the StackScript; to read, stackscript.json carries it",
        manifest,
        target,
        fields=fields,
        nothing=NOTHING,
    )
    product = manifest.product
    body = {
        "label": product.name,
        "description": product.tagline,
        "is_public": False,
        "rev_note": f"Version {product.version}",
        "images": [],
        "script": script.text,
    }
    return {
        "stackscript.json": as_json(
            body, "body for POST or PUT /v4/linode/stackscripts; `make publish` fills in images"
        ),
        "stackscript.sh": script,
        "description.txt": File(f"{manifest.listing.description}\n", "description of the app (100 to 125 words)"),
    }


def fields(option: Option) -> tuple[str, ...]:
    """The entries of a field that is a list."""
    return tuple(choice or NOTHING for choice in choices(option))
