"""Hetzner Cloud: no marketplace that takes new apps, so ways to deploy one's own snapshot."""

from __future__ import annotations

from aisandbox.builder.listing import machine
from aisandbox.builder.listing.files import Files, rendered
from aisandbox.builder.listing.platforms import terraform
from aisandbox.manifest import Manifest


def files(manifest: Manifest, target: str) -> Files:
    # Its cloud offers no plan with a GPU so far; without one, whoever deploys names the type.
    size = next(iter(machine.sizes(manifest, target)), None)
    return {
        "deploy.sh": rendered("hetzner/deploy.sh.j2", "deploys by command line (hcloud)", manifest, target, size=size),
        **terraform.example(manifest, target, size=size),
    }
