"""Where the time from power-on to the first answer went, from what systemd and the services recorded."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

from aisandbox.instance import clock, files
from aisandbox.instance.places import Places
from aisandbox.instance.run import services, systemctl
from aisandbox.manifest import Part

CLOUD_INIT_FIRST = "cloud-init-local.service"
CLOUD_INIT_LAST = ("cloud-init-network.service", "cloud-init.service")
"""The network stage, whose unit has two names, by version."""
EVENTS = ("InactiveExit", "ActiveEnter", "ExecMainStart")
STAMP = "TimestampMonotonic"

Times = Mapping[str, float]
"""Seconds since power-on, by what happened then."""


class Span(Part):
    """One phase as a user lives through it, in seconds since power-on. Phases overlap."""

    name: str
    began_s: float
    ended_s: float | None
    """None: it goes on."""


def read(places: Places) -> tuple[Span, ...]:
    """The spans up to the first answer: those kept since then, else those known by now."""
    kept = files.read_json(places.timeline)
    if kept:
        return tuple(Span.model_validate(span) for span in kept["spans"])
    return spans(
        systemd_times() if places.live else {},
        _times(places, "configure"),
        _times(places, "model"),
        _times(places, "engine"),
        _times(places, "publish"),
    )


def keep(places: Places) -> None:
    """Once everything serves: later changes are no part of the way to the first answer."""
    if not places.timeline.exists():
        files.write_json(places.timeline, {"spans": [span.model_dump() for span in read(places)]})


def spans(units: Times, configure: Times, model: Times, engine: Times, publish: Times) -> tuple[Span, ...]:
    """Spans in the order of their beginnings. `engine` counts from the start of the engine's process."""
    started = units.get("engine")
    engine = {} if started is None else {step: started + age for step, age in engine.items()}
    fetched = _first(model, "done", "failed")
    ready = publish.get("ready")
    found = [
        _span("cloud-init", units.get("cloud-init began"), units.get("cloud-init ended")),
        _span("configure", units.get("configure began"), _first(configure, "done", "failed")),
        _event("chat port answers", publish.get("chat_port")),
        _span("model look-up", model.get("look-up"), _first(model, "download", "done", "failed")),
        _span("download", model.get("download"), fetched),
        _span("engine import", engine.get("import"), _first(engine, "wait", "load", "serve")),
        _span("engine waits for the model", engine.get("wait"), _first(engine, "load", "serve")),
        _span("engine load", engine.get("load"), _first(engine, "serve")),
        _event("first token possible", ready),
    ]
    known = [span for span in found if span and (ready is None or span.began_s <= ready)]
    return (Span(name="power-on", began_s=0, ended_s=0), *sorted(known, key=lambda span: span.began_s))


def systemd_times() -> dict[str, float]:
    """When units began and ended, by systemd; empty where it cannot be asked."""
    names = (CLOUD_INIT_FIRST, *CLOUD_INIT_LAST, services.CONFIGURE, services.VLLM)
    try:
        shown = systemctl.show(names, *(f"{event}{STAMP}" for event in EVENTS), timeout_s=10)
    except (OSError, subprocess.SubprocessError):
        return {}
    stages = [at for name in CLOUD_INIT_LAST if (at := _stamp(shown, name, "ActiveEnter"))]
    times = {
        "cloud-init began": _stamp(shown, CLOUD_INIT_FIRST, "InactiveExit"),
        "cloud-init ended": stages[0] if stages else None,
        "configure began": _stamp(shown, services.CONFIGURE, "InactiveExit"),
        "engine": _stamp(shown, services.VLLM, "ExecMainStart"),
    }
    return {name: round(at, 2) for name, at in times.items() if at is not None}


def _stamp(shown: systemctl.Properties, unit: str, event: str) -> float | None:
    """When it happened, in seconds since power-on; None if it never did."""
    value = shown.get(unit, {}).get(f"{event}{STAMP}", "")
    return clock.of_systemd(int(value)) if value.isdigit() and int(value) else None


def _times(places: Places, service: str) -> dict[str, float]:
    timeline: Any = (files.read_json(places.status(service)) or {}).get("timeline")
    if not isinstance(timeline, dict):
        return {}
    return {str(step): float(at) for step, at in timeline.items() if isinstance(at, int | float)}


def _first(times: Times, *steps: str) -> float | None:
    return min((times[step] for step in steps if step in times), default=None)


def _span(name: str, began: float | None, ended: float | None) -> Span | None:
    if began is None:
        return None
    ended = None if ended is None else round(max(ended, began), 2)
    return Span(name=name, began_s=round(began, 2), ended_s=ended)


def _event(name: str, at: float | None) -> Span | None:
    return _span(name, at, at)
