"""Routes of the groups code, jupyter and nodejs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.responses import Response

from sandbox_api.code import models as m
from sandbox_api.code.node_process import NodeSession
from sandbox_api.code.service import CodeService
from sandbox_api.code.sessions import Session
from sandbox_api.direct import Direct, answer
from sandbox_api.envelope import Envelope, ok
from sandbox_api.errors import SandboxError
from sandbox_api.services import Injected, Services

router = APIRouter(prefix="/v1")
KERNEL = "python3"
SessionPath = Annotated[str, Field(min_length=1, max_length=100)]
Version = Annotated[str | None, Query(description="Major version, such as node24 or 24; it must be the one installed.")]


def _check_kernel(service: CodeService, name: str | None) -> None:
    version = service.python.version or ""
    known = {None, "", "python", KERNEL, f"python{version.rpartition('.')[0]}", f"python{version}"}
    # Until the first kernel is there, nobody knows the version.
    if name not in known and version:
        raise SandboxError("code_unavailable", f"there is no kernel {name[:60] if name else ''}", hint=f"Use {KERNEL}.")


# code


@router.post("/code/exec", tags=["code"], include_in_schema=False)
@router.post("/code/execute", tags=["code"], summary="Run code in Python or JavaScript")
async def execute_code(request: m.CodeExecuteRequest, services: Injected) -> Envelope[m.CodeExecution]:
    """An error of the code is not an error of the request: see `data.status`."""
    data = await services.code.execute(
        request.language,
        request.code,
        session_id=request.session_id,
        cwd=request.cwd,
        timeout=request.timeout,
        stateful=request.stateful,
    )
    return ok(data, _message(data))


@router.get("/code/info", tags=["code"], summary="Languages and their versions")
async def code_info(services: Injected) -> Envelope[m.CodeInfo]:
    return ok(await services.code.info())


def _message(done: m.Execution) -> str:
    if done.status == "ok":
        return "Code executed"
    error = next((output for output in done.outputs if output.output_type == "error"), None)
    cause = f"{error.ename}: {error.evalue}" if error else f"The code ended with status {done.status}"
    return done.note or cause


# jupyter


@router.post("/jupyter/execute", tags=["jupyter"], summary="Run Python in a session")
async def execute_python(request: m.JupyterExecuteRequest, services: Injected) -> Envelope[m.JupyterExecution]:
    """Without `session_id` a session is made; the answer has its id."""
    service = services.code
    _check_kernel(service, request.kernel_name)
    done = await service.python.execute(
        request.code,
        session_id=request.session_id,
        cwd=None if request.cwd is None else await asyncio.to_thread(service.folder, request.cwd),
        timeout=request.timeout,
        stateful=True,
    )
    return ok(m.JupyterExecution.model_construct(kernel_name=KERNEL, **dict(done)), _message(done))


@router.get("/jupyter/info", tags=["jupyter"], summary="The Python kernel")
async def python_info(services: Injected) -> Envelope[m.JupyterInfo]:
    service, settings = services.code, services.settings
    return ok(
        m.JupyterInfo(
            default_kernel=KERNEL,
            available_kernels=[KERNEL],
            active_sessions=len(service.python.sessions),
            session_timeout_seconds=round(settings.session_idle_s),
            max_sessions=settings.max_sessions,
            description=f"Python {service.python.version or ''}; one kernel is always warm for the next session.",
            kernel_detection="SANDBOX_PYTHON",
        )
    )


@router.get("/jupyter/sessions", tags=["jupyter"], summary="List the Python sessions")
async def list_python(services: Injected) -> Envelope[m.JupyterSessions]:
    now = time.time()
    sessions = {
        identity: m.JupyterSession(
            kernel_name=KERNEL,
            last_used=session.used,
            age_seconds=int(now - session.created),
            state="EXECUTING" if session.busy else "IDLE",
            cwd=str(session.cwd),
        )
        for identity, session in services.code.python.sessions.items()
    }
    return ok(m.JupyterSessions(sessions=sessions))


@router.post("/jupyter/sessions/create", tags=["jupyter"], summary="Make a Python session")
async def create_python(request: m.JupyterCreateSession, services: Injected) -> Envelope[m.JupyterSessionCreated]:
    service = services.code
    _check_kernel(service, request.kernel_name)
    folder = await asyncio.to_thread(service.folder, request.cwd)
    session, created = await service.python.create(request.session_id, folder)
    message = "Session created" if created else "The session exists already"
    return ok(m.JupyterSessionCreated(session_id=session.id, kernel_name=KERNEL, message=message, created=created))


@router.delete("/jupyter/sessions", tags=["jupyter"], summary="End all Python sessions")
async def end_all_python(services: Injected) -> Envelope[m.Ended]:
    ended = await services.code.python.sessions.end_all()
    return ok(m.Ended(ended=ended), f"{len(ended)} sessions ended")


@router.delete("/jupyter/sessions/{session_id}", tags=["jupyter"], summary="End a Python session")
async def end_python(session_id: SessionPath, services: Injected) -> Envelope[m.Ended]:
    await services.code.python.sessions.end(session_id)
    return ok(m.Ended(ended=[session_id]), "Session ended")


@router.post("/jupyter/sessions/{session_id}/interrupt", tags=["jupyter"], summary="Interrupt what a session runs")
async def interrupt_python(session_id: SessionPath, services: Injected) -> Envelope[m.Interrupted]:
    done = services.code.python.sessions.interrupt(session_id)
    return ok(m.Interrupted(session_id=session_id, interrupted=done), "Interrupted" if done else "Nothing ran")


# nodejs


@router.post("/nodejs/execute", tags=["nodejs"], summary="Run JavaScript")
async def execute_node(request: m.NodeExecuteRequest, services: Injected) -> Envelope[m.NodeExecution]:
    service = services.code
    await service.node.check_version(request.version)
    done = await service.node.execute(
        request.code,
        session_id=request.session_id,
        cwd=None if request.cwd is None else await asyncio.to_thread(service.folder, request.cwd),
        timeout=request.timeout,
        stateful=bool(request.stateful) or request.session_id is not None,
        stdin=request.stdin,
        files=request.files,
    )
    return ok(m.NodeExecution.model_construct(language="javascript", **dict(done)), _message(done))


@router.get("/nodejs/info", tags=["nodejs"], summary="Node.js and its packages")
async def node_info(services: Injected) -> Envelope[m.NodeInfo]:
    return ok(await services.code.node.info())


def _shown(session: Session[NodeSession]) -> m.NodeSession:
    return m.NodeSession(
        session_id=session.id,
        cwd=str(session.cwd),
        created_at=round(session.created * 1000),
        last_used=round(session.used * 1000),
        max_idle_time=round(session.idle_s * 1000),
        age_seconds=int(time.time() - session.used),
        state="EXECUTING" if session.busy else "IDLE",
    )


@router.post("/nodejs/sessions", tags=["nodejs"], summary="Make a JavaScript session")
async def create_node(
    request: m.NodeCreateSession, services: Injected, version: Version = None
) -> Envelope[m.NodeSessionCreated]:
    service = services.code
    await service.node.check_version(version)
    folder = await asyncio.to_thread(service.folder, request.cwd)
    identity = request.session_id or service.node.sessions.new_id()
    session, created = await service.node.sessions.obtain(
        identity, folder or services.settings.workspace_path, request.max_idle_time
    )
    message = None if created else "The session exists already"
    return ok(m.NodeSessionCreated(session_id=session.id, created=created, message=message, session=_shown(session)))


@router.get("/nodejs/sessions", tags=["nodejs"], summary="List the JavaScript sessions")
async def list_node(services: Injected, version: Version = None) -> Envelope[m.NodeSessions]:
    sessions = services.code.node.sessions.items()
    return ok(m.NodeSessions(sessions={identity: _shown(session) for identity, session in sessions}))


@router.get("/nodejs/sessions/{session_id}", tags=["nodejs"], summary="A JavaScript session")
async def get_node(
    session_id: SessionPath, services: Injected, version: Version = None
) -> Envelope[m.NodeSessionAnswer]:
    return ok(m.NodeSessionAnswer(session=_shown(services.code.node.sessions.get(session_id))))


@router.patch("/nodejs/sessions/{session_id}", tags=["nodejs"], summary="Change a JavaScript session")
async def update_node(
    session_id: SessionPath, request: m.NodeUpdateSession, services: Injected, version: Version = None
) -> Envelope[m.NodeSessionUpdated]:
    session = services.code.node.sessions.get(session_id)
    if request.cwd is not None:
        folder = await asyncio.to_thread(services.code.folder, request.cwd)
        assert folder is not None
        session.cwd, session.moved = folder, True
    session.idle_s = request.max_idle_time or session.idle_s
    return ok(
        m.NodeSessionUpdated(
            updated=request.cwd is not None or request.max_idle_time is not None, session=_shown(session)
        )
    )


@router.delete("/nodejs/sessions/{session_id}", tags=["nodejs"], summary="End a JavaScript session")
async def end_node(
    session_id: SessionPath, services: Injected, version: Version = None
) -> Envelope[m.NodeSessionDeleted]:
    await services.code.node.sessions.end(session_id)
    return ok(m.NodeSessionDeleted(deleted=True))


@router.post("/nodejs/sessions/{session_id}/interrupt", tags=["nodejs"], summary="Interrupt what a session runs")
async def interrupt_node(session_id: SessionPath, services: Injected) -> Envelope[m.Interrupted]:
    done = services.code.node.sessions.interrupt(session_id)
    return ok(m.Interrupted(session_id=session_id, interrupted=done), "Interrupted" if done else "Nothing ran")


def _direct(model: type[BaseModel], execute: Callable[[Any, Services], Awaitable[Envelope[Any]]]) -> Direct:
    async def respond(request: BaseModel, services: Services, _: Headers) -> Response:
        return answer(await execute(request, services))

    return Direct(model, respond)


direct = {
    "/v1/code/execute": _direct(m.CodeExecuteRequest, execute_code),
    "/v1/jupyter/execute": _direct(m.JupyterExecuteRequest, execute_python),
    "/v1/nodejs/execute": _direct(m.NodeExecuteRequest, execute_node),
}
