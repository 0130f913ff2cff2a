"""The appliance's state for people and programs, composed from the services' reports and from systemd."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from aisandbox.instance import address as addresses
from aisandbox.instance import clock, files
from aisandbox.instance.access import Access
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.fit import gpu
from aisandbox.instance.keep.upgrade.state import Upgrades
from aisandbox.instance.observe import timeline
from aisandbox.instance.observe.journal import Line
from aisandbox.instance.observe.notices import SecurityWarning, warnings
from aisandbox.instance.observe.report import State, now
from aisandbox.instance.observe.timeline import Span
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem
from aisandbox.instance.run import services
from aisandbox.instance.run.services import Unit
from aisandbox.manifest import Manifest, Part

PHASES = ("configure", "model", "engine")
"""Services that report, in the order in which they work towards the first answer."""
CERTIFICATE = "certificate"
"""Reports only when there is a domain."""
ESSENTIAL = (services.CONFIGURE, services.MODEL, services.VLLM, services.OPEN_WEBUI, services.NGINX)
"""Without one of these there is no first answer."""
SHELL = "docker exec -it CONTAINER bash"
"""How to look into a container, unless the platform has a page for it."""
HEALTH_TIMEOUT_S = 0.5
POLL_S = 0.5


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
    tunnel: str = ""
    """Command to run on one's own computer first, when the address works only there."""


class Sizing(Part):
    """How the model was fitted to this machine."""

    sentence: str
    rows: tuple[tuple[str, str], ...] = ()


class Image(BaseModel):
    """What the image of this instance was made of, as the bake recorded it: of the cpu flavour only its name.

    Not published.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    flavour: str = ""
    kernel: str = ""
    driver: str = ""
    """NVIDIA's."""
    cuda: str = ""
    """That vLLM runs on."""


class Overview(Part):
    """The whole state. It holds no secrets: the progress page publishes it."""

    product: str
    version: str
    image: Image
    state: Literal["starting", "ready", "failed"]
    """`failed`: a step failed or keeps crashing and nothing answers; with a fallback that serves, it is `ready`."""
    model: str | None
    """The model that was planned."""
    serving: str | None
    """The model that the engine serves or was told to serve; it differs from `model` after a failure."""
    sizing: Sizing | None
    access: Access
    phases: tuple[Phase, ...]
    endpoints: tuple[Endpoint, ...]
    services: tuple[Unit, ...]
    problems: tuple[Problem, ...]
    """Everything that is not as the user asked for, with its fix."""
    warnings: tuple[SecurityWarning, ...]
    timeline: tuple[Span, ...] = ()
    """Where the time to the first answer went; only when asked for."""
    log: tuple[Line, ...] = ()
    """Last lines of the log that everybody may see; only when asked for."""
    ssh: str
    """Command that opens a shell on the instance."""
    started: str
    """When the system was started."""
    now: str

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def busy(self) -> Phase | None:
        """The phase that people wait for: the first that failed, else the first that works."""
        work = [phase for phase in self.phases if phase.phase in PHASES]
        ranks = {"failed": 0, "running": 1}
        waited = [phase for phase in work if phase.state in ranks and phase.phase != "configure"]
        return min(waited, key=lambda phase: ranks[phase.state], default=None)


def compose(
    places: Places,
    manifest: Manifest,
    log: tuple[Line, ...] = (),
    with_timeline: bool = False,
    public: bool = False,
    watch: Callable[[], tuple[Unit, ...]] | None = None,
) -> Overview:
    """The state now. Fast and without side effects; what cannot be found out is left out.

    `public` leaves out what services said last before they crashed: that may quote what somebody wrote. `watch` gives
    the units to somebody who composes all the time.
    """
    deployment = Deployment.find(places.resolved)
    reports = {name: files.read_json(places.status(name)) for name in (*PHASES, CERTIFICATE)}
    phases = tuple(_phase(report, name) for name, report in reports.items() if report or name in PHASES)
    units = (watch or services.units)() if places.live else ()
    access = deployment.access if deployment else Access()
    certified = any(phase.phase == CERTIFICATE and phase.state == "done" for phase in phases)
    host = addresses.host(places)
    ssh = SHELL if places.container else f"ssh {manifest.os.default_user}@{host}"
    endpoints = (
        _published(places, manifest, access) if places.container else _endpoints(manifest, access, host, ssh, certified)
    )
    loops = {unit.name: loop for unit in units if (loop := services.crash_loop(unit))}
    if public:
        loops = {name: f"{name} keeps crashing" for name in loops}
    broken = {unit.name for unit in units if unit.active == "failed"} | set(loops)
    ready = all(endpoint.ready for endpoint in endpoints if endpoint.name != "sandbox")
    failed = any((reports[name] or {}).get("state") == "failed" for name in ("model", "engine"))
    release = files.read_json(places.release) or {}
    machine = tuple(_phase(report, name) for name in gpu.REPORTS if (report := files.read_json(places.status(name))))
    return Overview(
        product=manifest.product.name,
        version=release.get("version", manifest.product.version),
        image=Image() if public else Image.model_validate(release),
        state="ready" if ready else "failed" if failed or broken & set(ESSENTIAL) else "starting",
        model=deployment.model if deployment else None,
        serving=_serving(places, reports["engine"] or {}),
        sizing=_sizing((reports["model"] or {}).get("sizing")),
        access=access,
        phases=phases,
        endpoints=endpoints,
        services=units,
        problems=(*_problems(deployment, (*machine, *phases), units, loops), *_upgrade(places, public)),
        warnings=warnings(manifest, access, places.container),
        timeline=timeline.read(places) if with_timeline else (),
        log=log,
        ssh=ssh,
        started=clock.power_on(),
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


def _phase(report: dict[str, Any] | None, name: str) -> Phase:
    if report is None:
        return Phase(phase=name)
    return Phase.model_validate({**report, "phase": name, "step": report.get("phase", "")})


def _endpoints(manifest: Manifest, access: Access, host: str, ssh: str, certified: bool) -> tuple[Endpoint, ...]:
    found = []
    for name, path in (("chat", "/"), ("api", "/v1")):
        port = manifest.ports[name]
        base = f"https://{access.domain}" if certified and access.domain else f"http://{host}:{port.port}"
        ready = _healthy(manifest.ports[f"{name}_upstream"].port) and listening(port.port)
        found.append(Endpoint(name=name, label=port.label, url=base + path, ready=ready))
    if access.sandbox != "off":
        port = manifest.ports["sandbox"]
        local = access.sandbox == "local"
        found.append(
            Endpoint(
                name="sandbox",
                label=port.label,
                url=f"http://{'localhost' if local else host}:{port.port}/",
                ready=listening(port.port),
                tunnel=ssh.replace("ssh ", f"ssh -L {port.port}:localhost:{port.port} ", 1) if local else "",
            )
        )
    return tuple(found)


def _published(places: Places, manifest: Manifest, access: Access) -> tuple[Endpoint, ...]:
    """A container's endpoints: by the platform's proxy, else as if published under the same ports on this computer."""
    found = []
    for endpoint in _endpoints(manifest, access, "localhost", "", certified=False):
        port = manifest.ports[endpoint.name].port
        proxy = addresses.of_proxy(places, port)
        url = endpoint.url.replace(f"http://localhost:{port}", proxy) if proxy else endpoint.url
        if endpoint.name != "sandbox" or access.sandbox == "public":
            found.append(endpoint.model_copy(update={"url": url, "tunnel": ""}))
    return tuple(found)


def _serving(places: Places, engine: dict[str, Any]) -> str | None:
    """What the engine says that it serves, else what it was told to."""
    serving = engine.get("serving")
    located = Deployment.find(places.located)
    told = located.candidates[0].model if located and located.candidates else None
    return serving if isinstance(serving, str) else told


def _sizing(report: object) -> Sizing | None:
    """The model step's decision; its numbers come from a stranger's file, so they may be anything."""
    try:
        return Sizing.model_validate(report) if report else None
    except ValidationError:
        return None


def _problems(
    deployment: Deployment | None, phases: tuple[Phase, ...], units: tuple[Unit, ...], loops: dict[str, str]
) -> tuple[Problem, ...]:
    # The deployment's problems are what `configure` failed on.
    failed = [phase for phase in phases if phase.state == "failed" and phase.phase != "configure"]
    known = (*deployment.problems, *deployment.hardware.problems) if deployment else ()
    # A phase that failed for one of them says it again, and what came of it.
    found = [problem for problem in known if not any(problem.reason in phase.message for phase in failed)]
    found += [Problem(reason=phase.message, fix=phase.fix) for phase in failed]
    for unit in units:
        reason = loops.get(unit.name) or (f"{unit.name} has failed ({unit.result})" if unit.active == "failed" else "")
        if reason:
            found.append(Problem(reason=reason, fix=f"sudo aisandbox logs {services.short(unit.name)}"))
    return tuple(found)


def _upgrade(places: Places, public: bool) -> tuple[Problem, ...]:
    """An upgrade under way, or the last one if it was undone. Its last words may quote what somebody wrote."""
    upgrades = Upgrades(places.root, places.data)
    state = files.read_json(upgrades.state_file)
    if state:
        reason = f"the {state.get('operation')} to version {state.get('to_version')} is under way"
        return (Problem(reason=reason, fix="Follow it: sudo aisandbox upgrade --status"),)
    result = upgrades.result
    if not result or result.get("outcome") == "done":
        return ()
    detail = "" if public else str(result.get("detail", ""))
    reason = " ".join(filter(None, (str(result.get("message", "")), detail)))
    return (Problem(reason=reason, fix=str(result.get("fix", ""))),)


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


def listening(port: int) -> bool:
    """Whether something takes connections on loopback."""
    try:
        with socket.create_connection(("127.0.0.1", port), HEALTH_TIMEOUT_S):
            return True
    except OSError:
        return False
