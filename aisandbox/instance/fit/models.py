"""What `aisandbox models` does: shows the models on disk and those listed, gets them, and removes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aisandbox.instance.deployment import Deployment, Hardware
from aisandbox.instance.fetch import cache
from aisandbox.instance.fetch.download import Download, Progress
from aisandbox.instance.fit.model import request
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest, Part

ACCOUNT = "vllm"
"""Owner of the models on disk."""


class InUseError(Exception):
    """The model cannot be removed; the message says why."""


class Entry(Part):
    """One model that is on disk, listed, or both."""

    model: str
    size_bytes: int = 0
    """Bytes on disk, unfinished downloads included."""
    commits: tuple[str, ...] = ()
    complete: bool = False
    chosen: bool = False
    """The model that was asked for."""
    serving: bool = False
    """The model that the engine was told to serve."""
    embedded: bool = False
    """Whether it came with the image."""
    listed: bool = False
    license: str | None = None
    gpu_memory_gib: int | None = None
    """GPU memory that a listed model needs."""
    fits: bool | None = None
    """Whether a listed model fits this machine; None when that is not known."""


def entries(places: Places, manifest: Manifest) -> tuple[Entry, ...]:
    """Every model on disk or listed: those in use first, then by the list's order, then by name."""
    on_disk = {cached.model: cached for cached in cache.models(places.hub_cache)}
    resolved = Deployment.find(places.resolved)
    chosen, serving = resolved and resolved.model, served(places)
    fitting = _fitting(manifest, resolved.hardware) if resolved else None
    names = dict.fromkeys((*(listed.id for listed in manifest.models), *on_disk))
    found = []
    for name in names:
        listed, cached = manifest.model(name), on_disk.get(name)
        embedded = bool(listed and listed.embedded)
        found.append(
            Entry(
                model=name,
                size_bytes=cached.size_bytes if cached else 0,
                commits=cached.commits if cached else (),
                complete=bool(cached and (cached.complete or embedded)),
                chosen=name == chosen,
                serving=name == serving,
                embedded=embedded,
                listed=listed is not None,
                license=listed.license if listed else None,
                gpu_memory_gib=listed.gpu_memory_gib if listed else None,
                fits=name in fitting if listed and fitting is not None else None,
            )
        )
    return tuple(sorted(found, key=lambda entry: not (entry.chosen or entry.serving)))


def _fitting(manifest: Manifest, found: Hardware) -> set[str]:
    """Listed models that this machine serves."""
    return {model.id for model in manifest.fitting(found.gpu_memory_gib, len(found.gpus), found.capability)}


def served(places: Places) -> str | None:
    """The model that the engine was told to serve."""
    located = Deployment.find(places.located)
    return located.candidates[0].model if located and located.candidates else None


def pull(places: Places, manifest: Manifest, model: str, revision: str | None) -> Iterator[Progress | Path]:
    """Get a model as it is at the hub now: progress, then its folder. What is complete is only looked up.

    The files belong to the account that serves them, whoever asks.

    Raises:
        UnobtainableError: it cannot be had.
        UnreachableError: not now; what has arrived is kept.
    """
    resolved = Deployment.find(places.resolved)
    listed = manifest.model(model)
    chosen = resolved.serving.revision if resolved and model == resolved.model else None
    asked = request(
        places,
        manifest,
        listed.id if listed else model,
        revision or chosen or (listed and listed.revision) or "main",
        resolved.hub_endpoint if resolved else None,
    )
    with Download(asked, places.hub_cache, user=ACCOUNT if places.live else None) as download:
        download.look_up()
        yield from download.fetch()
        yield download.folder


def remove(places: Places, manifest: Manifest, model: str) -> bool:
    """Remove a model from the disk. Returns whether it was there.

    Raises:
        InUseError: it is chosen, served or part of the image.
    """
    listed = manifest.model(model)
    name = listed.id if listed else model
    if listed and listed.embedded:
        raise InUseError(f"{name} came with the image, and is what is served when nothing else can be.")
    resolved = Deployment.find(places.resolved)
    if name in (resolved and resolved.model, served(places)):
        raise InUseError(f"{name} is in use. Choose another model first: sudo aisandbox configure --model …")
    return cache.remove(places.hub_cache, name)
