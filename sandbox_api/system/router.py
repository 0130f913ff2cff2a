"""Routes about the sandbox itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse

from sandbox_api.envelope import Envelope, ok
from sandbox_api.errors import SandboxError
from sandbox_api.services import Injected
from sandbox_api.system.models import (
    Hook,
    LiveSnapshot,
    ObservationReport,
    ObservationStartResult,
    ObservationStatus,
    ObservationStopResult,
    ObserveExport,
    ObserveStart,
    ObserveStop,
    Package,
    Readiness,
    RegisterHook,
)

router = APIRouter(tags=["sandbox"])


@router.get("/health", summary="Whether the server lives")
async def health() -> Envelope[str]:
    return ok("alive")


@router.get("/v1/ping", summary="Whether the server answers")
async def ping() -> Envelope[str]:
    return ok("pong")


@router.get("/ready", summary="Whether the parts that are needed work")
async def ready(
    services: Injected,
    need: Annotated[str, Query(max_length=200, description="Further parts that must work, with commas.")] = "",
) -> Envelope[Readiness]:
    wanted = tuple(name.strip() for name in need.split(",") if name.strip())
    missing = await services.system.missing(wanted)
    if missing:
        names = ", ".join(f"{name} ({state.status})" for name, state in missing.items())
        details = Readiness(ready=False, missing=missing).model_dump()
        raise SandboxError("not_ready", f"not ready: {names}", data=details)
    return ok(Readiness(ready=True))


@router.get("/v1/sandbox/packages/python", summary="Python packages that code can import")
async def python_packages(services: Injected) -> Envelope[list[Package]]:
    return ok(await services.system.python_packages())


@router.get("/v1/sandbox/packages/nodejs", summary="Node.js packages that code can require")
async def node_packages(services: Injected) -> Envelope[list[Package]]:
    return ok(await services.system.node_packages())


@router.post("/v1/sandbox/hooks", summary="Have a command run when the sandbox ends")
async def register_hook(hook: RegisterHook, services: Injected) -> Envelope[Hook]:
    return ok(services.system.hooks.register(hook), "Hook registered")


@router.get("/v1/sandbox/hooks", summary="Hooks of an event, in their order")
async def list_hooks(
    services: Injected, event: Annotated[str, Query(max_length=64)] = "shutdown"
) -> Envelope[list[Hook]]:
    return ok(services.system.hooks.list(event))


@router.delete("/v1/sandbox/hooks/{name}", summary="Remove a hook")
async def remove_hook(name: str, services: Injected) -> Envelope[Hook]:
    return ok(services.system.hooks.remove(name), "Hook removed")


@router.get("/v1/sandbox/observe/live", summary="What the sandbox uses now")
async def observe_live(
    services: Injected, top_rows: Annotated[int, Query(ge=0, le=200)] = 10
) -> Envelope[LiveSnapshot]:
    return ok(await services.system.observer.live(top_rows))


@router.get("/v1/sandbox/observe/status", summary="Whether an observation runs")
async def observe_status(services: Injected) -> Envelope[ObservationStatus]:
    return ok(await services.system.observer.status())


@router.post("/v1/sandbox/observe/start", summary="Sample what the sandbox uses, for a while")
async def observe_start(request: ObserveStart, services: Injected) -> Envelope[ObservationStartResult]:
    return ok(await services.system.observer.start(request))


@router.post("/v1/sandbox/observe/stop", summary="Stop sampling")
async def observe_stop(request: ObserveStop, services: Injected) -> Envelope[ObservationStopResult]:
    return ok(await services.system.observer.stop(request.session_id))


@router.post("/v1/sandbox/observe/export", summary="Pack samples into a report")
async def observe_export(request: ObserveExport, services: Injected) -> Envelope[ObservationReport]:
    return ok(await services.system.observer.export(request))


@router.get("/v1/sandbox/observe/reports", summary="Reports that were packed")
async def observe_reports(services: Injected) -> Envelope[list[ObservationReport]]:
    return ok(await services.system.observer.reports())


@router.get(
    "/v1/sandbox/observe/reports/{report_id}",
    summary="Download a report",
    response_class=FileResponse,
    responses={200: {"content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def observe_report(report_id: str, services: Injected) -> FileResponse:
    report = await services.system.observer.report(report_id)
    return FileResponse(report.path, media_type="application/gzip", filename=f"{report_id}.tar.gz")


@router.delete("/v1/sandbox/observe/reports/{report_id}", summary="Delete a report")
async def observe_report_delete(report_id: str, services: Injected) -> Envelope[ObservationReport]:
    return ok(await services.system.observer.delete(report_id))
