"""Where the time from power-on to the first answer went, from what systemd and the services recorded."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aisandbox.instance import clock, files
from aisandbox.instance.places import Places
from aisandbox.instance.run import services
from aisandbox.manifest import Part

CLOUD_INIT_FIRST = "cloud-init-local.service"
CLOUD_INIT_LAST = ("cloud-init-network.service", "cloud-init.service")
"""The network stage, whose unit has two names, by version."""

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


def systemd_times(show: Callable[[], str] | None = None) -> dict[str, float]:
    """When units began and ended, by systemd; empty where it cannot be asked."""
    try:
        blocks = dict(_blocks((show or _show)()))
    except (OSError, subprocess.SubprocessError):
        return {}
    stages = [blocks[name] for name in CLOUD_INIT_LAST if blocks.get(name, {}).get("ActiveEnter")]
    first, configure, engine = (blocks.get(name, {}) for name in (CLOUD_INIT_FIRST, services.CONFIGURE, services.VLLM))
    times = {
        "cloud-init began": first.get("InactiveExit"),
        "cloud-init ended": stages[0]["ActiveEnter"] if stages else None,
        "configure began": configure.get("InactiveExit"),
        "engine": engine.get("ExecMainStart"),
    }
    return {name: round(at, 2) for name, at in times.items() if at is not None}


def _show() -> str:
    names = (CLOUD_INIT_FIRST, *CLOUD_INIT_LAST, services.CONFIGURE, services.VLLM)
    properties = ",".join(f"{event}TimestampMonotonic" for event in ("InactiveExit", "ActiveEnter", "ExecMainStart"))
    command = ["systemctl", "show", f"--property=Id,{properties}", *names]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def _blocks(shown: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Each unit's time stamps, in seconds since power-on; those that never came are left out."""
    for block in shown.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = values.pop("Id", "")
        yield (
            name,
            {
                key.removesuffix("TimestampMonotonic"): clock.of_systemd(int(value))
                for key, value in values.items()
                if value.isdigit() and int(value)
            },
        )


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
