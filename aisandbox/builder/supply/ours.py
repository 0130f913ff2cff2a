"""What the image has of ours: the code, and models that were baked in."""

from __future__ import annotations

import hashlib

from aisandbox import manifest
from aisandbox.builder.supply.distributions import locked
from aisandbox.builder.supply.inventory import OPT, Findings, Kind, Package, clean
from aisandbox.builder.supply.licences import NOASSERTION
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
    listed = {model.id: model for model in product.models}
    for name in tree.names(f"{opt}/models"):
        kind, _, rest = name.partition("--")
        if kind != "models" or not rest:
            continue
        identity = clean(rest.replace("--", "/", 1))
        revision = clean(tree.text(f"{opt}/models/{name}/refs/main", 1000))
        place = f"{opt}/models/{name}/snapshots/{revision}"
        if not revision or "/" in revision or not tree.names(place):
            found.problems.append(f"/{opt}/models/{name}: no revision that is there")
        model = listed.get(identity)
        found.packages.append(
            Package(
                kind=Kind.model,
                name=identity,
                version=revision,
                licence=model.license if model else NOASSERTION,
                said_in="marketplace.yaml" if model else "",
                supplier=product.listing.vendor if identity.startswith(f"{product.product.id}/") else "",
                places=(f"/{opt}/models/{name}",),
                content=_digest(tree, [place]),
            )
        )
        if model and model.origin:
            found.packages.append(_origin(model.origin, "guide", f"{opt}/models/{name}"))
    for name, origin in product.auxiliary_models:
        place = f"{opt}/auxiliary/{name}"
        if tree.names(place):
            found.packages.append(_origin(origin, "auxiliary", place, _digest(tree, [place])))
    return found


def _origin(origin: manifest.Origin, lock: str, place: str, content: str = "") -> Package:
    """The model that a baked one was made from, in the version of the package that carried its weights."""
    pinned = locked((manifest.REPOSITORY / "locks" / f"{lock}.txt").read_text(encoding="utf-8"))
    ((version, hashes),) = [(pin[1], hashes) for pin, hashes in pinned.items() if pin[0] == origin.package]
    return Package(
        kind=Kind.model,
        name=origin.id,
        version=version,
        licence=origin.license,
        said_in="marketplace.yaml",
        supplier=origin.id.partition("/")[0],
        homepage=f"https://huggingface.co/{origin.id}",
        places=(f"/{place}",),
        content=content,
        artifact=f"sha256:{hashes[0]}" if len(hashes) == 1 else "",
    )


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
