"""/v1/shell: the same commands in another form, with both streams also as one text; and their live stream."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from sandbox_api.addresses import public_base
from sandbox_api.compat.aio.shell_models import (
    ActiveShellSessionsResult,
    ConsoleRecord,
    OnDisconnect,
    ShellCommandResult,
    ShellCreateSessionRequest,
    ShellCreateSessionResponse,
    ShellExecRequest,
    ShellKillProcessRequest,
    ShellKillResult,
    ShellSessionInfo,
    ShellSessionStats,
    ShellStatus,
    ShellUpdateSessionRequest,
    ShellViewRequest,
    ShellViewResult,
    ShellWaitRequest,
    ShellWaitResult,
    ShellWriteResult,
    ShellWriteToProcessRequest,
    StreamRequest,
)
from sandbox_api.direct import Direct, answer
from sandbox_api.envelope import Envelope, ok
from sandbox_api.errors import SandboxError
from sandbox_api.head_tail import clipped
from sandbox_api.services import Injected
from sandbox_api.shell.bash_routes import info, moment
from sandbox_api.shell.bash_routes import result as bash_result
from sandbox_api.shell.command import Command, Status
from sandbox_api.shell.session import Session
from sandbox_api.shell.terminal import Terminal
from sandbox_api.unicode import dumps

router = APIRouter(prefix="/v1/shell", tags=["shell"])

PING_S = 15.0
PIECE = 64 * 1024
"""Characters in one event of a stream."""
ACTIVE_S = 300.0
STATUSES: dict[Status, ShellStatus] = {
    "pending": "running",
    "running": "running",
    "completed": "completed",
    "timed_out": "hard_timeout",
    "killed": "terminated",
}
SHOWN_COMMANDS = 20
SHOWN_CHARACTERS = 4000


def _merged(command: Command, limit: int, stdout: str = "") -> str:
    return clipped(command.merged(), limit) if command.stderr.size or not stdout else stdout


def _record(command: Command, output: str) -> ConsoleRecord:
    return ConsoleRecord(ps1=f"{command.directory}$ ", command=command.text, output=output)


def result(command: Command, limit: int, status: ShellStatus | None = None) -> ShellCommandResult:
    found = dict(bash_result(command, limit))
    output = _merged(command, limit, found["stdout"])
    found |= {"status": status or STATUSES[command.status], "output": output, "console": [_record(command, output)]}
    return ShellCommandResult(**found)


def _streams(accept: str | None) -> bool:
    return "text/event-stream" in (accept or "")


STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One answer; or events, for clients that accept text/event-stream",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post("/exec", response_model=Envelope[ShellCommandResult], responses=STREAMED)
async def execute(request: ShellExecRequest, services: Injected, accept: str | None = Header(None)) -> Response:
    """Run a command and wait for its end, for `timeout` seconds at most; it goes on after that.

    `{"command": "echo test"}` is enough. A session, named by `id`, keeps folder and variables. An exit code other than
    0 is not an error of the request. With `Accept: text/event-stream` the answer is that of /v1/shell/stream.
    """
    shell = services.shell
    interactive = request.async_mode if request.interactive is None else request.interactive
    command = await shell.execute(
        request.command,
        session_id=request.id or None,
        directory=request.exec_dir,
        strict=request.strict is not False,
        variables=request.env,
        stdin=request.stdin,
        interactive=interactive,
        hard_timeout=request.hard_timeout,
        keep_links=bool(request.preserve_symlinks),
    )
    if _streams(accept):
        return _event_stream(command, "detach" if request.async_mode else "kill")
    status: ShellStatus | None = None
    if not request.async_mode:
        quiet = request.no_change_timeout
        if quiet is None:
            quiet = shell.sessions[command.session_id].no_change_timeout
        timeout = shell.settings.command_timeout_s if request.timeout is None else request.timeout
        if await command.wait(timeout, quiet):
            status = "no_change_timeout"
    return answer(ok(result(command, shell.settings.answer_output_chars if request.truncate else 0, status)))


@router.post("/stream", response_class=StreamingResponse, responses=STREAMED)
async def stream(request: StreamRequest, services: Injected) -> Response:
    """Run a command and send what happens as server-sent events.

    `started` {session_id, command_id, pid}; `stdout` and `stderr` {data, offset: where it goes on}; `ping` every 15 s;
    `exit` {status, exit_code, …} at the end. When the reader goes away, the command is ended, or with
    `on_disconnect: detach` goes on.
    """
    command = await services.shell.execute(
        request.command,
        session_id=request.session_id or None,
        directory=request.exec_dir,
        variables=request.env,
        stdin=request.stdin,
        interactive=bool(request.interactive),
        hard_timeout=request.hard_timeout,
        keep_links=bool(request.preserve_symlinks),
    )
    return _event_stream(command, request.on_disconnect)


@router.get("/stream", response_class=StreamingResponse, responses=STREAMED)
async def follow(
    services: Injected,
    session_id: str,
    command_id: str | None = None,
    offset: int = Query(0, ge=0),
    stderr_offset: int = Query(0, ge=0),
    on_disconnect: OnDisconnect = "detach",
) -> Response:
    """Follow a command that runs already, from these offsets; the events are those of the POST route."""
    return _event_stream(services.shell.find(session_id, command_id), on_disconnect, offset, stderr_offset)


def _event_stream(
    command: Command, on_disconnect: OnDisconnect, offset: int = 0, stderr_offset: int = 0
) -> StreamingResponse:
    return StreamingResponse(
        _events(command, on_disconnect, [offset, stderr_offset]),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def _event(name: str, **data: object) -> str:
    return f"event: {name}\ndata: {dumps(data).decode()}\n\n"


async def _events(command: Command, on_disconnect: OnDisconnect, offsets: list[int]) -> AsyncIterator[str]:
    try:
        yield _event("started", session_id=command.session_id, command_id=command.id, pid=command.pid)
        while True:
            final = not command.running
            silent = True
            for index, name in enumerate(("stdout", "stderr")):
                text, offset = command.spools[index].text(offsets[index], PIECE, final)
                if offset > offsets[index]:
                    silent = False
                    yield _event(name, data=text, offset=offset, skipped=0 if text else offset - offsets[index])
                offsets[index] = offset
            if final and silent:
                break
            if silent and not await command.news(PING_S):
                yield _event("ping", time=time.time())
        yield _event("exit", **info(command).model_dump(exclude={"command"}))
    finally:
        if on_disconnect == "kill" and command.running:
            command.kill(signal.SIGTERM)


@router.post("/view", response_model=Envelope[ShellViewResult], responses=STREAMED)
async def view(request: ShellViewRequest, services: Injected, accept: str | None = Header(None)) -> Response:
    """What the session's latest command has written, and the commands before it."""
    session = services.shell.session(request.id)
    session.used = time.time()
    latest = session.latest
    if latest and _streams(accept):
        return _event_stream(latest, "detach")
    shown = session.commands[-SHOWN_COMMANDS:]
    data = ShellViewResult(
        output=_merged(latest, services.shell.settings.answer_output_chars) if latest else "",
        session_id=session.id,
        console=[_record(command, clipped(command.merged(), SHOWN_CHARACTERS)) for command in shown],
        status=STATUSES[latest.status] if latest else "completed",
        command=latest.text if latest else None,
        exit_code=latest.exit_code if latest else None,
    )
    return answer(ok(data))


@router.post("/wait")
async def wait(request: ShellWaitRequest, services: Injected) -> Envelope[ShellWaitResult]:
    """Wait for the end of the session's command."""
    command = services.shell.find(request.id)
    given = [seconds for seconds in (request.seconds, request.max_wait_seconds) if seconds is not None]
    await command.wait(min(given, default=30))
    return ok(ShellWaitResult(status=STATUSES[command.status], exit_code=command.exit_code))


@router.post("/write")
async def write(request: ShellWriteToProcessRequest, services: Injected) -> Envelope[ShellWriteResult]:
    """Write to the input of the session's command, which was started with async_mode or interactive."""
    command = services.shell.find(request.id)
    services.shell.write(command, request.input + ("\n" if request.press_enter else ""))
    await asyncio.sleep(0)
    return ok(ShellWriteResult(status=STATUSES[command.status]))


@router.post("/kill")
async def kill(request: ShellKillProcessRequest, services: Injected) -> Envelope[ShellKillResult]:
    """End the session's command and all that it started: SIGTERM, then SIGKILL."""
    command = services.shell.find(request.id)
    before = command.exit_code
    await services.shell.kill(command, "SIGTERM")
    code = command.exit_code if before is None else before
    return ok(ShellKillResult(status=STATUSES[command.status], exit_code=code, returncode=code))


@router.post("/sessions/create")
async def create_session(
    request: ShellCreateSessionRequest, services: Injected
) -> Envelope[ShellCreateSessionResponse]:
    """Create a session, or return the one that has this name."""
    session = services.shell.create(request.id or None, request.exec_dir)
    if request.no_change_timeout is not None:
        session.no_change_timeout = request.no_change_timeout
    session.keep_links = bool(request.preserve_symlinks)
    return ok(ShellCreateSessionResponse(session_id=session.id, working_dir=str(session.directory)))


@router.post("/sessions/update")
async def update_session(request: ShellUpdateSessionRequest, services: Injected) -> Envelope[None]:
    """Change how a session runs commands."""
    services.shell.session(request.id).no_change_timeout = request.no_change_timeout
    return ok(None)


@router.get("/terminal-url")
async def terminal_url(request: Request, services: Injected) -> Envelope[str]:
    """Address of a terminal page with a new session."""
    if services.shell.settings.shell is None:
        raise SandboxError("shell_unavailable", "this host has no shell")
    # Made by its first use, so that addresses which nobody opens take no room.
    return ok(f"{public_base(request, services.settings)}/terminal?session_id={secrets.token_hex(8)}")


@router.get("/sessions/stats")
async def stats(services: Injected) -> Envelope[ShellSessionStats]:
    """How many sessions there are."""
    shell = services.shell
    recent = time.time() - ACTIVE_S
    active = sum(session.used >= recent or session.running is not None for session in shell.sessions.values())
    total = len(shell.sessions)
    return ok(
        ShellSessionStats(
            total_sessions=total,
            active_sessions=active,
            idle_sessions=total - active,
            max_sessions=shell.settings.max_sessions,
            session_timeout=int(shell.settings.session_idle_s),
            usage_ratio=min(
                1.0, sum(session.kept for session in shell.sessions.values()) / shell.settings.max_sessions
            ),
            running_commands=shell.running,
            terminals=len(shell.terminals.all),
        )
    )


def _session_info(session: Session) -> ShellSessionInfo:
    running = session.running
    return ShellSessionInfo(
        working_dir=str(session.directory),
        created_at=moment(session.created),
        last_used_at=moment(session.used),
        age_seconds=int(time.time() - session.created),
        status="running" if running else "ready",
        current_command=running.text if running else None,
    )


def _terminal_info(terminal: Terminal) -> ShellSessionInfo:
    return ShellSessionInfo(
        working_dir=str(terminal.directory),
        created_at=moment(terminal.created),
        last_used_at=moment(time.time() if terminal.attachment else terminal.used),
        age_seconds=int(time.time() - terminal.created),
        status="terminal",
    )


@router.get("/sessions")
async def sessions(services: Injected) -> Envelope[ActiveShellSessionsResult]:
    """List the sessions."""
    found = {name: _terminal_info(terminal) for name, terminal in services.shell.terminals.all.items()}
    found |= {name: _session_info(session) for name, session in services.shell.sessions.items()}
    return ok(ActiveShellSessionsResult(sessions=found))


@router.delete("/sessions")
async def delete_sessions(services: Injected) -> Envelope[None]:
    """End all sessions, terminals included, and what runs in them."""
    count = services.shell.close_all()
    return ok(None, f"{count} sessions ended")


@router.delete("/sessions/{session_id}")
async def delete_session(session_id: str, services: Injected) -> Envelope[None]:
    """End a session and what runs in it."""
    services.shell.close(session_id)
    return ok(None)


direct = {
    "/v1/shell/exec": Direct(
        ShellExecRequest, lambda request, services, headers: execute(request, services, headers.get("accept"))
    )
}
