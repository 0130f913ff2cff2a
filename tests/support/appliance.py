"""An appliance's file tree for unit tests, below a temporary folder."""

from __future__ import annotations

import json
from pathlib import Path

from aisandbox import manifest
from aisandbox.instance.places import Places

MANIFEST = manifest.load()
GUIDE = MANIFEST.embedded_model.id
GUIDE_COMMIT = "a" * 40


def make(root: Path, flavour: str = "cpu") -> Places:
    """The tree as it is baked, with the repository's templates and a pretended embedded model."""
    places = Places.of(MANIFEST, root)
    places.opt.mkdir(parents=True)
    places.templates.symlink_to(manifest.REPOSITORY / "templates")
    places.release.write_text(json.dumps({"flavour": flavour, "version": "1.2.3"}))
    baked = places.baked_models / f"models--{GUIDE.replace('/', '--')}"
    for folder in ("refs", "blobs", f"snapshots/{GUIDE_COMMIT}"):
        (baked / folder).mkdir(parents=True)
    (baked / "refs" / "main").write_text(GUIDE_COMMIT)
    (baked / "blobs" / "b1").write_text("{}")
    (baked / "snapshots" / GUIDE_COMMIT / "config.json").symlink_to("../../blobs/b1")
    return places


def options(places: Places, text: str) -> None:
    """Write the user's options file."""
    places.options.parent.mkdir(parents=True, exist_ok=True)
    places.options.write_text(text)


def cloud_config(places: Places, text: str, file: str = "cloud-config.txt") -> None:
    """Write a file as cloud-init leaves it for this instance."""
    places.cloud_instance.mkdir(parents=True, exist_ok=True)
    (places.cloud_instance / file).write_text(text)
