"""`aisandbox model-fetch`: brings the chosen model to this instance, then tells the engine what to serve."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.deployment import Deployment, Serving
from aisandbox.instance.errors import UnobtainableError, UnreachableError
from aisandbox.instance.fetch import cache
from aisandbox.instance.fetch.download import Download
from aisandbox.instance.fetch.request import Listing, Request
from aisandbox.instance.fit import sizing
from aisandbox.instance.fit.sizing import Sized, fit
from aisandbox.instance.fit.sizing.given import Given
from aisandbox.instance.observe.report import Reporter
from aisandbox.instance.places import Places, cache_name
from aisandbox.instance.serve import fallbacks
from aisandbox.instance.serve.fallbacks import UTILIZATION
from aisandbox.manifest import Manifest

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 60.0
LONGEST_WISH_S = 3600.0
"""A hub may ask for more patience than we would have by ourselves, within reason."""
STAND_IN_AFTER = 3
"""Failed attempts after which the embedded model is served meanwhile, if nothing else is."""


def fetch(places: Places, manifest: Manifest, sleep: Callable[[float], None] = time.sleep) -> None:
    """Locate what configure resolved. A model that cannot be had ends in a fallback, with the reason in the status.

    Raises:
        FileNotFoundError: nothing was resolved.
    """
    deployment = Deployment.load(places.resolved)
    if deployment is None:
        raise FileNotFoundError(places.resolved)
    serving = deployment.serving
    report = Reporter(places.status("model"))
    facts: dict[str, Any] = {"model": serving.model, "revision": serving.revision}
    if problem := deployment.hardware.no_gpu:
        guide = _guide(places, deployment)
        doing = "No model can be served"
        if guide:
            replace(deployment, candidates=(fallbacks.on_processor(guide),)).save(places.located)
            doing = f"Serving {guide.model} on the processor"
        instead = guide.model if guide else None
        report.failed("plan", f"{doing}: {problem.reason}.", problem.fix, **facts, serving=instead)
        return
    try:
        if serving.embedded:
            sized = Sized(replace(serving, folder=str(_embedded(places, serving.model))), "", ())
        else:
            sized = _downloaded(places, deployment, manifest, report, facts, sleep)
    except UnobtainableError as failure:
        instead = _fall_back(places, deployment)
        message = f"{failure} Serving {instead} instead." if instead else str(failure)
        report.failed("fetch", message, failure.fix, model=serving.model, revision=serving.revision, serving=instead)
        return
    _hand_over(places, deployment, sized)
    message = f"{serving.model} is on this instance. {sized.sentence}".rstrip()
    report.done("fetch", message, **facts, serving=serving.model)


# What the engine is told


def _hand_over(places: Places, deployment: Deployment, sized: Sized) -> None:
    """Tell the engine to serve the model, and what to serve should it fail."""
    asked, less = (one and _beside_others(deployment, one) for one in (sized.serving, sized.less))
    _locate(places, deployment, asked, less, () if deployment.serving.embedded else _before(places))


def _fall_back(places: Places, deployment: Deployment) -> str | None:
    """Keep what is being served, else serve the embedded model. Returns what is served then, if anything can be."""
    before, located = _before(places), Deployment.find(places.located)
    if located and before and before[0].folder == located.candidates[0].folder:
        replace(located, hardware=deployment.hardware).save(places.located)
        return before[0].model
    return _locate(places, deployment, None, None, before)


def _locate(
    places: Places, deployment: Deployment, asked: Serving | None, less: Serving | None, before: tuple[Serving, ...]
) -> str | None:
    """Leave the document to the engine, unless nothing can be served. Returns what comes first."""
    gpus = deployment.hardware.flavour == "cuda"
    candidates = fallbacks.ordered(asked, less, before, _guide(places, deployment), gpus)
    if not candidates:
        return None
    replace(deployment, candidates=candidates).save(places.located)
    return candidates[0].model


def _before(places: Places) -> tuple[Serving, ...]:
    report = files.read_json(places.status("engine")) or {}
    return fallbacks.served_before(Deployment.find(places.located), report)


def _beside_others(deployment: Deployment, serving: Serving) -> Serving:
    """The same with vLLM's part of the GPUs' memory cut to what other programs leave of it."""
    share = deployment.hardware.free_share
    if share == 1 or Given(deployment.asked.vllm_args).has(UTILIZATION):
        return serving
    part = Given(serving.args).number(UTILIZATION) or fit.UTILIZATION
    return replace(serving, args=(*serving.args, UTILIZATION, f"{math.floor(100 * part * share) / 100:g}"))


def _guide(places: Places, deployment: Deployment) -> Serving | None:
    """The embedded model, located; None when the image lacks it."""
    try:
        folder = _embedded(places, deployment.guide.model)
    except UnobtainableError:
        return None
    return _beside_others(deployment, replace(deployment.guide, folder=str(folder)))


# Models of the image


def _embedded(places: Places, model: str) -> Path:
    """The baked model's folder in the hub cache, copied there unless it is there already.

    Raises:
        UnobtainableError: the image has no such model, or it cannot be copied.
    """
    name = cache_name(model)
    baked, kept = places.baked_models / name, places.hub_cache / name
    try:
        commit = (baked / "refs" / "main").read_text().strip()
        folder = kept / "snapshots" / commit
        if not folder.is_dir():
            _copy(baked, kept)
        return folder
    except OSError as error:
        raise UnobtainableError(
            f"The model of the image, {model}, cannot be used ({error}).",
            "Check the free space of the data directory, or deploy the image again.",
        ) from error


def _copy(source: Path, target: Path) -> None:
    """Copy a folder so that the target is there whole or not at all; an older one is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        shutil.copytree(source, Path(temporary) / "new", symlinks=True)
        if target.exists():
            target.rename(Path(temporary) / "old")
        (Path(temporary) / "new").rename(target)


# Models of a hub


def request(places: Places, manifest: Manifest, model: str, revision: str, endpoint: str | None) -> Request:
    """What to ask a hub for, with the names to suggest when there is no such model."""
    known = tuple(listed.id for listed in manifest.models if not listed.embedded)
    return Request(model, revision, endpoint, _token(places), known)


def _downloaded(
    places: Places,
    deployment: Deployment,
    manifest: Manifest,
    report: Reporter,
    facts: dict[str, Any],
    sleep: Callable[[float], None],
) -> Sized:
    """The model, downloaded unless it is complete. Tries until it succeeds; what is found out goes into the facts.

    Raises:
        UnobtainableError: it cannot be had or served as chosen, however often one tries.
    """
    serving = deployment.serving
    folder = cache.complete(places.hub_cache, serving.model, serving.revision)
    if folder is not None:
        return _sized(places, deployment, manifest, _listed(folder), facts).at(folder)
    asked = request(places, manifest, serving.model, serving.revision, deployment.hub_endpoint)
    patience = _Patience()
    for attempt in count(1):
        trying = {**facts, "attempt": attempt}
        report.running("look-up", f"Looking up {serving.model} at {asked.address}.", **trying)
        try:
            # Xet hangs on some networks; plain HTTP also goes on in the middle of a file.
            with Download(asked, places.hub_cache, xet=attempt == 1) as download:
                sized = _sized(places, deployment, manifest, download.look_up(), facts)
                trying |= facts
                for progress in download.fetch():
                    patience.renew()
                    report.running("download", f"Downloading {serving.model}.", **trying, **vars(progress))
                return sized.at(download.folder)
        except UnreachableError as unreachable:
            if attempt >= STAND_IN_AFTER and not places.located.exists():
                trying["serving"] = _fall_back(places, deployment)
            _pause(patience.seconds(unreachable.wait_s), str(unreachable), report, sleep, trying)
    raise AssertionError("it is tried for ever")


class _Patience:
    """How long to wait before the next attempt: longer every time, unless bytes have arrived since."""

    def __init__(self) -> None:
        self._next = FIRST_WAIT_S

    def renew(self) -> None:
        """A new interruption is not the old one that lasts."""
        self._next = FIRST_WAIT_S

    def seconds(self, wish: float | None) -> float:
        """Seconds to wait now, at least as long as the hub wishes."""
        wait, self._next = self._next, min(self._next * 2, LONGEST_WAIT_S)
        return max(wait, min(wish or 0, LONGEST_WISH_S))


def _pause(
    seconds: float, message: str, report: Reporter, sleep: Callable[[float], None], facts: dict[str, Any]
) -> None:
    """Wait before the next attempt, counting down in the status."""
    until = f"{datetime.now(UTC) + timedelta(seconds=seconds):%H:%M:%S} UTC"
    for left in range(math.ceil(seconds), 0, -1):
        report.running("wait", f"{message} Trying again at {until}.", **facts, retry_in_s=left)
        sleep(1)


def _listed(folder: Path) -> Listing:
    """What the hub told about the model in this folder when it was downloaded."""
    texts = {}
    for name in ("config.json", "hf_quant_config.json"):
        path = folder / name
        texts[name] = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return Listing(folder.name, sizes, texts["config.json"], texts["hf_quant_config.json"])


def _sized(
    places: Places, deployment: Deployment, manifest: Manifest, listing: Listing, facts: dict[str, Any]
) -> Sized:
    """How the model is served on this machine; the commit and the sizing go into the facts.

    Raises:
        UnobtainableError: it cannot be.
    """
    if listing.config is None:
        raise UnobtainableError(
            f"{deployment.model} has no config.json, so nothing is known about it.",
            "Choose a model in the Hugging Face format: sudo aisandbox configure --model ORGANISATION/NAME",
        )
    config = sizing.parse(listing.config.encode())
    quant = sizing.parse(listing.quant_config.encode()) if listing.quant_config else None
    known = sizing.architectures(places), quant, sizing.formats(places)
    sized = sizing.size(deployment, config, listing.weights, manifest, *known)
    facts["commit"] = listing.commit
    if sized.rows or sized.sentence:
        facts["sizing"] = sized.facts()
    return sized


def _token(places: Places) -> str | None:
    """The access token: as systemd hands it to the service, else, for root, from its file."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / places.hf_token.name if folder else places.hf_token
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
