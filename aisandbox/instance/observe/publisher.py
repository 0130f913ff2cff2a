"""`aisandbox status-publish`: keeps what onlookers read up to date, without their having to run anything."""

from __future__ import annotations

import json
import time
from typing import Any

from aisandbox.instance import clock, files
from aisandbox.instance.http_probe import listening
from aisandbox.instance.observe import clients, timeline
from aisandbox.instance.observe.journal import KernelErrors, Tail
from aisandbox.instance.observe.status import HEALTH_TIMEOUT_S, POLL_S, Overview, Phase, compose
from aisandbox.instance.places import Places
from aisandbox.instance.run import rendering, services
from aisandbox.manifest import Manifest


def publish(places: Places, manifest: Manifest) -> None:
    """Publish the state, for ever: for the progress page, the API port and the login message."""
    tail = Tail(places.container) if places.live else None
    watch = services.watch() if places.live else None
    errors = KernelErrors(places) if places.live and not places.container else None
    seen: dict[str, float] = (files.read_json(places.status("publish")) or {}).get("timeline", {})
    told: object = None
    template = (places.templates / "motd.txt.j2").read_text(encoding="utf-8")
    while True:
        if errors:
            errors.keep()
        overview = compose(places, manifest, tail.lines if tail else (), public=True, watch=watch)
        _note_times(places, manifest, overview, seen)
        if overview.ready:
            files.write(places.published_ready, "ready\n")
            for file in (places.published_loading, places.published_loading_messages):
                file.unlink(missing_ok=True)
        else:
            places.published_ready.unlink(missing_ok=True)
            answer = loading(overview, manifest)
            files.write(places.published_loading, json.dumps(answer, ensure_ascii=False))
            files.write(places.published_loading_messages, json.dumps(for_messages(answer), ensure_ascii=False))
        told = _publish_clients(places, manifest, overview, told)
        files.write(places.published_motd, motd(template, overview, manifest))
        # The state comes last: its age tells the age of the rest.
        files.write(places.published_status, overview.model_dump_json())
        time.sleep(POLL_S)


def _publish_clients(places: Places, manifest: Manifest, overview: Overview, told: object) -> object:
    """Publish what clients are told while chat and API answer, anew when that changes.

    Returns what it was made from, to be given as `told` the next time; None when nothing is published.
    """
    if not overview.ready:
        places.published_clients.unlink(missing_ok=True)
        return None
    made_from = (overview.serving, overview.access, [endpoint.url for endpoint in overview.endpoints])
    if made_from == told:
        return told
    try:
        files.write_json(places.published_clients, clients.public(places, manifest, overview))
    except clients.NotServingError:
        # What was published may be wrong by now; the next round tries again.
        places.published_clients.unlink(missing_ok=True)
        return None
    return made_from


def motd(template: str, overview: Overview, manifest: Manifest) -> str:
    """The login message."""
    return rendering.fill(template, {"status": overview, "manifest": manifest})


def loading(overview: Overview, manifest: Manifest) -> dict[str, Any]:
    """The API's answer while no model serves: an error as OpenAI shapes it, with the progress beside."""
    phase = overview.busy or Phase(phase="configure")
    facts = phase.model_extra or {}
    total, done, eta = (_number(facts.get(fact)) for fact in ("bytes_total", "bytes_done", "eta_s"))
    percent = round(100 * min((done or 0) / total, 1), 1) if total and phase.state == "running" else None
    what = "No model can be served" if overview.state == "failed" else "The model is not ready yet"
    at = [f"{what}: {phase.message}" if phase.message else f"{what}."]
    if percent is not None:
        at.append(f"{percent:.0f} % done{'' if eta is None else f', about {eta:.0f} s left'}.")
    port = manifest.ports["chat"].port
    at.append(f"Progress: port {port} in a browser, or `aisandbox status` on the instance.")
    return {
        "error": {
            "message": " ".join(at),
            "type": "service_unavailable",
            "param": None,
            "code": "model_loading",
            "progress": {
                "state": overview.state,
                "phase": phase.phase,
                "step": phase.step,
                "percent": percent,
                "bytes_done": done if total else None,
                "bytes_total": total,
                "eta_s": eta,
                "elapsed_s": round(clock.since_power_on(), 1),
            },
        }
    }


def for_messages(answer: dict[str, Any]) -> dict[str, Any]:
    """The same as Anthropic shapes errors."""
    error = answer["error"]
    return {
        "type": "error",
        "error": {"type": "overloaded_error", **{key: error[key] for key in ("message", "progress")}},
    }


def _number(value: object) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _note_times(places: Places, manifest: Manifest, overview: Overview, seen: dict[str, float]) -> None:
    """Remember when the chat port first answered, and when everything did."""
    new = {}
    if "chat_port" not in seen and listening(manifest.ports["chat"].port, HEALTH_TIMEOUT_S):
        new["chat_port"] = round(clock.since_power_on(), 2)
    if "ready" not in seen and overview.ready:
        new["ready"] = round(clock.since_power_on(), 2)
    if new:
        seen |= new
        files.write_json(places.status("publish"), {"timeline": seen})
    if "ready" in new:
        timeline.keep(places)
