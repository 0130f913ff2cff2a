"""DigitalOcean: the body for the Vendor Portal, the 1-Click App's texts, and ways to deploy."""

from __future__ import annotations

from aisandbox.builder.listing import machine, texts
from aisandbox.builder.listing.files import Files, as_json, rendered
from aisandbox.builder.listing.platforms import terraform
from aisandbox.builder.listing.software import software
from aisandbox.manifest import Manifest


def files(manifest: Manifest, target: str) -> Files:
    product, system, parts = manifest.product, manifest.os, software(manifest)
    patch = {
        "reasonForUpdate": f"Version {product.version}\n{texts.release_notes(manifest)}",
        "version": product.version,
        "osVersion": f"{system.family.capitalize()} {system.version}",
        "softwareIncluded": [
            {
                "name": part.name,
                "version": part.version,
                "releaseNotes": part.release_notes,
                "website": part.website,
                "licenseType": part.licence,
                "licenseLink": part.licence_link,
            }
            for part in parts
        ],
    }
    size = machine.size(manifest, target)
    return {
        "patch.json": as_json(patch, "body for PATCH /api/v1/vendor-portal/apps/ID; `make publish` adds imageId"),
        "listing.md": rendered(
            "digitalocean/listing.md.j2",
            "Vendor Portal: the app's texts",
            manifest,
            target,
            software_rows=[(part.name, part.version, part.licence) for part in parts],
        ),
        "getting-started.md": rendered(
            "digitalocean/getting-started.md.j2", "Vendor Portal: getting started", manifest, target, size=size
        ),
        "deploy.sh": rendered(
            "digitalocean/deploy.sh.j2", "deploys by command line (doctl)", manifest, target, size=size
        ),
        **terraform.example(manifest, target, size=size),
    }
