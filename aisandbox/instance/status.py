"""The appliance's state for people and programs, composed from the services' reports and from systemd."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from aisandbox.instance import files, systemd
from aisandbox.instance.access import Access
from aisandbox.instance.notices import Problem, SecurityWarning, warnings
from aisandbox.instance.places import Places, cached_model
from aisandbox.instance.report import State, now
from aisandbox.manifest import Manifest, Part

PHASES = ("configure", "model", "engine")
"""Services that report, in the order in which they work towards the first answer."""
HEALTH_TIMEOUT_S = 0.5
POLL_S = 1.0
POLL_READY_S = 2.0
"""Once everything serves, looking less often is soon enough."""


class Phase(BaseModel):
    """What one of the services that lead to the first answer last reported.

    Whatever else it reports stands beside these, such as a download's `bytes_done`, `bytes_total`,
    `bytes_per_second` and `eta_s`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    phase: str
    """Name of the service."""
    step: str = ""
    """What it is at."""
    state: State | Literal["waiting"] = "waiting"
    message: str = ""
    fix: str = ""
    since: str | None = None
    updated: str | None = None


class Endpoint(Part):
    """Something that users open."""

    name: str
    label: str
    url: str
    ready: bool


class Overview(Part):
    """The whole state. It holds no secrets: the progress page publishes it."""

    product: str
    version: str
    state: Literal["starting", "ready", "failed"]
    """`failed`: a step failed and nothing answers; with a fallback that serves, the state is `ready`."""
    model: str | None
    """The model that was planned."""
    serving: str | None
    """The model that the engine was told to serve; it differs from `model` after a failure."""
    phases: tuple[Phase, ...]
    endpoints: tuple[Endpoint, ...]
    services: tuple[systemd.Unit, ...]
    problems: tuple[Problem, ...]
    """Everything that is not as the user asked for, with its fix."""
    warnings: tuple[SecurityWarning, ...]
    ssh: str
    """Command that opens a shell on the instance."""
    started: str
    """When the system was started."""
    now: str

    @property
    def ready(self) -> bool:
        return self.state == "ready"


def compose(places: Places, manifest: Manifest) -> Overview:
    """The state now. Fast and without side effects; what cannot be found out is left out."""
    plan = files.read_json(places.plan) or {}
    phases = tuple(_phase(places.status(name), name) for name in PHASES)
    units = systemd.units() if places.live else ()
    address = _address(places)
    endpoints = tuple(
        Endpoint(
            name=name,
            label=manifest.ports[name].label,
            url=f"http://{address}:{manifest.ports[name].port}{path}",
            ready=_healthy(manifest.ports[f"{name}_upstream"].port) and _listening(manifest.ports[name].port),
        )
        for name, path in (("chat", "/"), ("api", "/v1"))
    )
    engine = files.read_json(places.engine) or {}
    ready = all(endpoint.ready for endpoint in endpoints)
    failed = any(phase.state == "failed" for phase in phases[1:]) or any(unit.active == "failed" for unit in units)
    return Overview(
        product=manifest.product.name,
        version=(files.read_json(places.release) or {}).get("version", manifest.product.version),
        state="ready" if ready else "failed" if failed else "starting",
        model=plan.get("model"),
        serving=cached_model(engine.get("model", "")),
        phases=phases,
        endpoints=endpoints,
        services=units,
        problems=_problems(plan, phases, units),
        warnings=warnings(manifest, Access.model_validate(plan.get("access") or {})),
        ssh=f"ssh {manifest.os.default_user}@{address}",
        started=_started(),
        now=now(),
    )


def wait(places: Places, manifest: Manifest, seconds: float, sleep: Callable[[float], None] = time.sleep) -> Overview:
    """The state once chat and API are ready, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        overview = compose(places, manifest)
        if overview.ready or time.monotonic() >= deadline:
            return overview
        sleep(min(POLL_S, max(deadline - time.monotonic(), 0)))


def publish(places: Places, manifest: Manifest) -> None:
    """Keep the file that the progress page polls up to date, for ever."""
    while True:
        overview = compose(places, manifest)
        files.write(places.published_status, overview.model_dump_json())
        if overview.ready:
            files.write(places.published_ready, "ready\n")
        else:
            places.published_ready.unlink(missing_ok=True)
        time.sleep(POLL_READY_S if overview.ready else POLL_S)


def _phase(path: Path, name: str) -> Phase:
    report = files.read_json(path)
    if report is None:
        return Phase(phase=name)
    return Phase.model_validate({**report, "phase": name, "step": report.get("phase", "")})


def _problems(plan: dict[str, Any], phases: tuple[Phase, ...], units: tuple[systemd.Unit, ...]) -> tuple[Problem, ...]:
    found = [Problem.model_validate(entry) for entry in plan.get("problems", ())]
    # The plan's problems are what `configure` failed on.
    for phase in phases:
        if phase.state == "failed" and phase.phase != "configure":
            found.append(Problem(reason=phase.message, fix=phase.fix))
    for unit in units:
        if unit.active == "failed":
            reason = f"{unit.name} has failed ({unit.result})"
            found.append(Problem(reason=reason, fix=f"sudo journalctl -u {unit.name}"))
    return tuple(found)


def _started() -> str:
    """When process 1 was started: the machine's power-on, and right in a container too."""
    ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return (datetime.now(UTC) - timedelta(seconds=age)).isoformat(timespec="seconds")


def _healthy(port: int) -> bool:
    """Whether the server on loopback says that it is healthy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), HEALTH_TIMEOUT_S):
            return True
    except OSError:
        return False


def _address(places: Places) -> str:
    """Where to reach the instance: its public address when the cloud tells, else its route's."""
    try:
        data = json.loads((places.cloud_run / "instance-data.json").read_bytes())["ds"]["meta_data"]
        public = data.get("public-ipv4") or data.get("public_ipv4")
        if isinstance(public, str) and public:
            return public
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket only picks the route: nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
