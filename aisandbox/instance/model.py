"""`aisandbox model-fetch`: brings the planned model to this instance, then tells the engine what to serve."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.errors import UnobtainableError, UnreachableError
from aisandbox.instance.places import Places, cache_name, cached_model
from aisandbox.instance.plan import Plan, Serving
from aisandbox.instance.report import Reporter

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 60.0


def fetch(places: Places, sleep: Callable[[float], None] = time.sleep) -> None:
    """Do what the plan says. A model that cannot be had ends in the fallback, with the reason in the status.

    Raises:
        FileNotFoundError: there is no plan.
    """
    plan = Plan.model_validate_json(places.plan.read_bytes())
    report = Reporter(places.status("model"))
    facts = {"model": plan.model, "revision": plan.revision}
    if not plan.servable:
        problem = plan.problems[0]
        report.failed("plan", f"No model can be served: {problem.reason}.", problem.fix, **facts)
        return
    try:
        folder = _embedded(places, plan) if plan.embedded else _downloaded(places, plan, report, sleep)
    except UnobtainableError as failure:
        serving = _fall_back(places, plan)
        message = f"{failure} Serving {serving} instead." if serving else str(failure)
        report.failed("fetch", message, failure.fix, **facts, serving=serving)
        return
    _hand_over(places, plan, folder)
    report.done("fetch", f"{plan.model} is on this instance.", **facts, serving=plan.model)


def _hand_over(places: Places, serving: Serving, folder: Path) -> None:
    engine = {"model": str(folder), "served_names": list(serving.served_names), "args": list(serving.args)}
    files.write_json(places.engine, engine)


def _fall_back(places: Places, plan: Plan) -> str | None:
    """Keep what is being served, else serve the fallback. Returns what is served then, if anything can be."""
    current = files.read_json(places.engine)
    if current:
        return cached_model(current["model"])
    fallback = plan.fallback
    if plan.embedded:
        return None
    try:
        folder = _embedded(places, fallback)
    except UnobtainableError:
        return None
    # Its own name comes first, so that answers name it; the chosen one stays for clients that were set to it.
    names = tuple(dict.fromkeys((*fallback.served_names, *plan.served_names)))
    _hand_over(places, fallback.model_copy(update={"served_names": names}), folder)
    return fallback.model


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


def _downloaded(places: Places, plan: Plan, report: Reporter, sleep: Callable[[float], None]) -> Path:
    """The model's folder in the hub cache, downloaded unless it is complete. Tries until it succeeds.

    Raises:
        UnobtainableError: it cannot be had as chosen, however often one tries.
    """
    from aisandbox.instance import hub  # slow to import, and the embedded model needs none of it

    request = hub.Request(plan.model, plan.revision, plan.hub_endpoint, _token())
    folder = hub.cached(request, places.hub_cache)
    wait = FIRST_WAIT_S
    attempt = 0
    while folder is None:
        attempt += 1
        facts = {"model": plan.model, "revision": plan.revision, "attempt": attempt}

        def progressed(progress: hub.Progress, facts: dict[str, object] = facts) -> None:
            nonlocal wait
            wait = FIRST_WAIT_S  # bytes arrive, so the next interruption is a new one
            report.running("download", f"Downloading {plan.model}.", **facts, **vars(progress))

        report.running("look-up", f"Looking up {plan.model} at {request.address}.", **facts)
        try:
            folder = hub.fetch(request, places.hub_cache, progressed)
        except UnreachableError as unreachable:
            pause = min(max(wait, unreachable.wait_s or 0), LONGEST_WAIT_S)
            report.running("wait", f"{unreachable} Trying again in {pause:.0f} s.", **facts, retry_in_s=pause)
            sleep(pause)
            wait = min(wait * 2, LONGEST_WAIT_S)
    return folder


def _token() -> str | None:
    """The access token that systemd hands over as a credential, if there is one."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        return (folder and (Path(folder) / "hf_token").read_text().strip()) or None
    except OSError:
        return None
