"""Writes a model into the cache layout of the Hugging Face hub, so that it loads like any downloaded model."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_model(cache: Path, model: str, files: Mapping[str, bytes]) -> Path:
    """Put the files of `model` ("owner/name") into the cache, replacing what is there; return the snapshot.

    The commit is derived from the content: the same files always make the same snapshot.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    listing = "".join(f"{digest} {name}\n" for name, digest in digests.items())
    commit = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()

    home = cache / f"models--{model.replace('/', '--')}"
    staging = cache / f".{home.name}.new"
    shutil.rmtree(staging, ignore_errors=True)
    snapshot = staging / "snapshots" / commit
    for folder in (staging / "blobs", staging / "refs", snapshot):
        folder.mkdir(parents=True)
    for name, digest in digests.items():
        (staging / "blobs" / digest).write_bytes(files[name])
        (snapshot / name).symlink_to(Path("..", "..", "blobs", digest))
    (staging / "refs" / "main").write_text(commit, encoding="ascii")

    shutil.rmtree(home, ignore_errors=True)
    staging.rename(home)
    return home / "snapshots" / commit
