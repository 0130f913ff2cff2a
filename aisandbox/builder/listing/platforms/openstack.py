"""OpenStack: uploads the disk image and deploys it."""

from __future__ import annotations

from aisandbox.builder.listing import machine
from aisandbox.builder.listing.files import Files, rendered
from aisandbox.builder.listing.platforms import terraform
from aisandbox.manifest import Manifest


def files(manifest: Manifest, target: str) -> Files:
    image = machine.image_name(manifest)
    return {
        "deploy.sh": rendered(
            "openstack/deploy.sh.j2", "uploads the image and deploys by command line", manifest, target, image=image
        ),
        **terraform.example(manifest, target, image=image),
    }
