"""What the image has of ours: the code, and models that were baked in."""

from __future__ import annotations

import hashlib

from aisandbox import manifest
from aisandbox.build.supply.inventory import OPT, Findings, Kind, Package, clean
from aisandbox.build.supply.licences import NOASSERTION
from aisandbox.check.tree import Tree

LARGEST_WEIGHTS = 64 * 2**30
CODE = ("lib", "templates", "www")
"""Folders of our own below /opt/aisandbox."""


def read(tree: Tree, commit: str) -> Findings:
    """Our code, and every model.

    Args:
        commit: the source that the image was baked from; empty when it is not known.
    """
    product, opt = manifest.load(), OPT
    found = Findings()
    folders = [f"{opt}/{name}" for name in CODE if tree.names(f"{opt}/{name}")]
    if folders:
        found.packages.append(
            Package(
                kind=Kind.own,
                name=product.product.id,
                version=product.product.version,
                licence=product.product.license,
                said_in="marketplace.yaml",
                supplier=product.listing.vendor,
                homepage=product.product.support_url,
                places=tuple(f"/{folder}" for folder in folders),
                content=_digest(tree, folders),
                commit=commit,
            )
        )
    licences = {model.id: model.license for model in product.models}
    for name in tree.names(f"{opt}/models"):
        kind, _, rest = name.partition("--")
        if kind != "models" or not rest:
            continue
        identity = clean(rest.replace("--", "/", 1))
        revision = clean(tree.text(f"{opt}/models/{name}/refs/main", 1000))
        place = f"{opt}/models/{name}/snapshots/{revision}"
        if not revision or "/" in revision or not tree.names(place):
            found.problems.append(f"/{opt}/models/{name}: no revision that is there")
        found.packages.append(
            Package(
                kind=Kind.model,
                name=identity,
                version=revision,
                licence=licences.get(identity, NOASSERTION),
                said_in="marketplace.yaml" if identity in licences else "",
                supplier=product.listing.vendor if identity.startswith(f"{product.product.id}/") else "",
                places=(f"/{opt}/models/{name}",),
                content=_digest(tree, [place]),
            )
        )
    return found


def _digest(tree: Tree, folders: list[str]) -> str:
    """Digest of the list of files with their digests; byte-code is left out, which is made at installation."""
    lines = []
    for folder in folders:
        for path, _, names in tree.walk(folder):
            for name in names:
                found = None if name.endswith(".pyc") else tree.find(f"{path}/{name}")
                if found and found.is_file():
                    with found.open("rb") as handle:
                        lines.append(f"{hashlib.file_digest(handle, 'sha256').hexdigest()}  {path}/{name}\n")
    return "sha256:" + hashlib.sha256("".join(sorted(lines)).encode(errors="replace")).hexdigest()
