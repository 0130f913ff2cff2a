"""`aisandbox model-fetch`: brings the planned model to this instance, then tells the engine what to serve."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.errors import UnobtainableError, UnreachableError
from aisandbox.instance.fetch import cache
from aisandbox.instance.fetch.download import Download
from aisandbox.instance.fetch.request import Listing, Request
from aisandbox.instance.fit import sizing, tables
from aisandbox.instance.fit.sizing import fit
from aisandbox.instance.fit.sizing.given import Given
from aisandbox.instance.observe.report import Reporter
from aisandbox.instance.places import Places, cache_name, cached_model
from aisandbox.instance.plan import Plan, Serving, no_gpu
from aisandbox.manifest import Manifest

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 60.0
LONGEST_WISH_S = 3600.0
"""A hub may ask for more patience than we would have by ourselves, within reason."""
UTILIZATION_ARGUMENT = "--gpu-memory-utilization"
STAND_IN_AFTER = 3
"""Failed attempts after which the embedded model is served meanwhile, if nothing else is."""


@dataclass(frozen=True)
class Fetched:
    """A model on disk, and how it is to be served."""

    folder: Path
    sized: sizing.Sized
    facts: dict[str, Any] = field(default_factory=dict)
    """For the status: the commit, and how the model was sized."""


def fetch(places: Places, manifest: Manifest, sleep: Callable[[float], None] = time.sleep) -> None:
    """Do what the plan says. A model that cannot be had ends in a fallback, with the reason in the status.

    Raises:
        FileNotFoundError: there is no plan.
    """
    plan = Plan.model_validate_json(places.plan.read_bytes())
    report = Reporter(places.status("model"))
    facts = {"model": plan.model, "revision": plan.revision}
    if not plan.servable:
        problem = no_gpu(plan.hardware)
        serving = _without_gpu(places, plan)
        doing = f"Serving {serving} on the processor" if serving else "No model can be served"
        report.failed("plan", f"{doing}: {problem.reason}.", problem.fix, **facts, serving=serving)
        return
    try:
        if plan.embedded:
            fetched = Fetched(_embedded(places, plan), sizing.Sized(plan.args, "", ()))
        else:
            fetched = _downloaded(places, plan, manifest, report, sleep)
    except UnobtainableError as failure:
        serving = _fall_back(places, plan)
        message = f"{failure} Serving {serving} instead." if serving else str(failure)
        report.failed("fetch", message, failure.fix, **facts, serving=serving)
        return
    _hand_over(places, plan, fetched)
    message = f"{plan.model} is on this instance. {fetched.sized.sentence}".rstrip()
    report.done("fetch", message, **facts, **fetched.facts, serving=plan.model)


# What the engine is told


def _hand_over(places: Places, plan: Plan, fetched: Fetched) -> None:
    """Tell the engine to serve the model, and what to serve should it fail."""
    asked = _entry(plan.model, fetched.folder, plan.served_names, _beside_others(plan, fetched.sized.args))
    fallbacks = []
    if retry := fetched.sized.retry:
        less = _entry(plan.model, fetched.folder, plan.served_names, _beside_others(plan, retry.args))
        fallbacks.append({**less, "why": retry.why, "fix": retry.fix})
    if not plan.embedded:
        fallbacks += [entry for entry in _good(places) if entry["model"] != asked["model"]][:1]
        fallbacks += [entry for entry in _guide(places, plan) if entry["model"] not in {e["model"] for e in fallbacks}]
    _write(places, plan, {**asked, "fallbacks": fallbacks})


def _fall_back(places: Places, plan: Plan) -> str | None:
    """Keep what is being served, else serve the embedded model. Returns what is served then, if anything can be."""
    good = _good(places)
    current = files.read_json(places.engine) or {}
    if good and good[0]["model"] == current.get("model"):
        files.write_json(places.engine, _with_devices(plan, current))
        return str(good[0]["name"])
    instead = [*good, *_guide(places, plan)] if not plan.embedded else good
    if not instead:
        return None
    # Its own name comes first, so that answers name it; the chosen one stays for clients that were set to it.
    names = list(dict.fromkeys((*instead[0]["served_names"], *plan.served_names)))
    asked = {key: value for key, value in instead[0].items() if key != "why"}
    _write(places, plan, {**asked, "served_names": names, "fallbacks": instead[1:]})
    return str(instead[0]["name"])


def _entry(name: str, folder: Path, names: tuple[str, ...], args: tuple[str, ...]) -> dict[str, Any]:
    return {"name": name, "model": str(folder), "served_names": list(names), "args": list(args)}


def _good(places: Places) -> list[dict[str, Any]]:
    """What the engine was told to serve until now and can serve, best first."""
    current = files.read_json(places.engine)
    if not current:
        return []
    found = [
        {
            **{key: entry[key] for key in ("model", "served_names", "args")},
            "name": entry.get("name") or cached_model(entry["model"]) or entry["model"],
            "why": entry.get("why") or "It was served before.",
        }
        for entry in (current, *current.get("fallbacks", []))
        if Path(entry["model"]).is_dir() and not entry.get("processor")
    ]
    status = files.read_json(places.status("engine")) or {}
    if status.get("state") != "failed":
        return found
    # The engine cannot serve what it was asked for, and says what it serves instead.
    serves = [entry for entry in found if entry["name"] == status.get("serving")]
    return serves + [entry for entry in found if entry not in serves and entry["model"] != current["model"]]


def _without_gpu(places: Places, plan: Plan) -> str | None:
    """Have the processor serve the embedded model. Returns its name; None if the image lacks it."""
    guide = _on_processor(places, plan)
    if not guide:
        return None
    asked = {key: value for key, value in guide[0].items() if key != "why"}
    names = list(dict.fromkeys((*asked["served_names"], *plan.served_names)))
    files.write_json(places.engine, {**asked, "served_names": names})
    return str(asked["name"])


def _on_processor(places: Places, plan: Plan) -> list[dict[str, Any]]:
    """The embedded model as the CUDA flavour serves it without a GPU; vLLM's arguments are not for it."""
    why = "No GPU can be used."
    return [{**guide, "args": [], "processor": True, "why": why} for guide in _guide(places, plan)]


def _write(places: Places, plan: Plan, config: dict[str, Any]) -> None:
    """Tell the engine; the CUDA flavour also what to serve should its GPUs fail, and which of them to use."""
    if plan.hardware.flavour == "cuda":
        config = {**config, "fallbacks": [*config["fallbacks"], *_on_processor(places, plan)]}
    files.write_json(places.engine, _with_devices(plan, config))


def _with_devices(plan: Plan, config: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in config.items() if key != "devices"}
    return rest | ({"devices": list(plan.hardware.devices)} if plan.hardware.devices else {})


def _beside_others(plan: Plan, args: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments, with vLLM's part of the GPUs' memory cut to what other programs leave of it."""
    share = plan.hardware.free_share
    if share == 1 or Given(plan.asked.vllm_args).has(UTILIZATION_ARGUMENT):
        return args
    part = Given(args).number(UTILIZATION_ARGUMENT) or fit.UTILIZATION
    return (*args, UTILIZATION_ARGUMENT, f"{math.floor(100 * part * share) / 100:g}")


def _guide(places: Places, plan: Plan) -> list[dict[str, Any]]:
    fallback = plan.fallback
    try:
        folder = _embedded(places, fallback)
    except UnobtainableError:
        return []
    args = _beside_others(plan, fallback.args)
    return [{**_entry(fallback.model, folder, fallback.served_names, args), "why": "It came with the image."}]


# Models of the image


def _embedded(places: Places, serving: Serving) -> Path:
    """The baked model's folder in the hub cache, copied there unless it is there already.

    Raises:
        UnobtainableError: the image has no such model, or it cannot be copied.
    """
    name = cache_name(serving.model)
    baked, kept = places.baked_models / name, places.hub_cache / name
    try:
        commit = (baked / "refs" / "main").read_text().strip()
        folder = kept / "snapshots" / commit
        if not folder.is_dir():
            _copy(baked, kept)
        return folder
    except OSError as error:
        raise UnobtainableError(
            f"The model of the image, {serving.model}, cannot be used ({error}).",
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
    places: Places, plan: Plan, manifest: Manifest, report: Reporter, sleep: Callable[[float], None]
) -> Fetched:
    """The model, downloaded unless it is complete. Tries until it succeeds.

    Raises:
        UnobtainableError: it cannot be had or served as chosen, however often one tries.
    """
    folder = cache.complete(places.hub_cache, plan.model, plan.revision)
    if folder is not None:
        listing = _listed(folder)
        return _fetched(folder, listing, _sized(places, plan, manifest, listing))
    asked = request(places, manifest, plan.model, plan.revision, plan.hub_endpoint)
    patience = _Patience()
    attempt = 0
    while True:
        attempt += 1
        facts: dict[str, Any] = {"model": plan.model, "revision": plan.revision, "attempt": attempt}
        report.running("look-up", f"Looking up {plan.model} at {asked.address}.", **facts)
        try:
            # Xet hangs on some networks; plain HTTP also goes on in the middle of a file.
            with Download(asked, places.hub_cache, xet=attempt == 1) as download:
                listing = download.look_up()
                sized = _sized(places, plan, manifest, listing)
                facts |= _facts(listing, sized)
                for progress in download.fetch():
                    patience.renew()
                    report.running("download", f"Downloading {plan.model}.", **facts, **vars(progress))
                return _fetched(download.folder, listing, sized)
        except UnreachableError as unreachable:
            if attempt >= STAND_IN_AFTER and not places.engine.exists():
                facts["serving"] = _fall_back(places, plan)
            _pause(patience.seconds(unreachable.wait_s), str(unreachable), report, sleep, facts)


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


def _sized(places: Places, plan: Plan, manifest: Manifest, listing: Listing) -> sizing.Sized:
    """How the model is served on this machine.

    Raises:
        UnobtainableError: it cannot be.
    """
    if listing.config is None:
        raise UnobtainableError(
            f"{plan.model} has no config.json, so nothing is known about it.",
            "Choose a model in the Hugging Face format: sudo aisandbox configure --model ORGANISATION/NAME",
        )
    config = sizing.parse(listing.config.encode())
    quant = sizing.parse(listing.quant_config.encode()) if listing.quant_config else None
    return sizing.size(plan, config, listing.weights, manifest, tables.read(places), quant)


def _fetched(folder: Path, listing: Listing, sized: sizing.Sized) -> Fetched:
    return Fetched(folder, sized, _facts(listing, sized))


def _facts(listing: Listing, sized: sizing.Sized) -> dict[str, Any]:
    return {"commit": listing.commit, **({"sizing": sized.facts()} if sized.rows or sized.sentence else {})}


def _token(places: Places) -> str | None:
    """The access token: as systemd hands it to the service, else, for root, from its file."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / places.hf_token.name if folder else places.hf_token
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
