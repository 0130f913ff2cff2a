"""/v1/bash: commands over pipes, with stdout and stderr apart."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.responses import Response

from sandbox_api.direct import Direct, answer
from sandbox_api.envelope import Envelope, ok
from sandbox_api.services import Injected
from sandbox_api.shell.command import Command
from sandbox_api.shell.models import (
    BashCommandInfo,
    BashExecRequest,
    BashExecResult,
    BashKillRequest,
    BashOutputRequest,
    BashOutputResult,
    BashSessionCreateRequest,
    BashSessionInfo,
    BashWriteRequest,
    Omission,
)
from sandbox_api.shell.session import Session
from sandbox_api.shell.spool import Excerpt

router = APIRouter(prefix="/v1/bash", tags=["bash"])
LISTED_COMMANDS = 10
LISTED_CHARACTERS = 500


def omission(excerpt: Excerpt) -> Omission | None:
    return Omission(offset=excerpt.omitted_at, bytes=excerpt.omitted) if excerpt.omitted else None


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def info(command: Command) -> BashCommandInfo:
    return BashCommandInfo(
        command_id=command.id,
        command=command.text,
        status=command.status,
        exit_code=command.exit_code,
        signal=command.signal,
        stdout_bytes=command.stdout.size,
        stderr_bytes=command.stderr.size,
        dropped=command.stdout.dropped + command.stderr.dropped,
        seconds=command.seconds,
    )


def _session_info(session: Session) -> BashSessionInfo:
    running = session.running
    commands = [info(command) for command in session.commands[-LISTED_COMMANDS:]]
    for command in commands:
        command.command = command.command[:LISTED_CHARACTERS]
    return BashSessionInfo(
        session_id=session.id,
        status="ready",
        working_dir=str(session.directory),
        created_at=moment(session.created),
        last_used_at=moment(session.used),
        current_command=running.text if running else None,
        command_count=session.count,
        commands=commands,
    )


def result(command: Command, limit: int) -> BashExecResult:
    """What there is of a command, at most `limit` characters of each stream (0: no limit)."""
    final = not command.running
    out, err = (spool.excerpt(limit, final) for spool in command.spools)
    return BashExecResult(
        session_id=command.session_id,
        command_id=command.id,
        command=command.text,
        status=command.status,
        stdout=out.text,
        stderr=err.text,
        exit_code=command.exit_code,
        signal=command.signal,
        offset=out.end,
        stderr_offset=err.end,
        stdout_omitted=omission(out),
        stderr_omitted=omission(err),
        dropped=command.stdout.dropped + command.stderr.dropped,
        seconds=command.seconds,
        pid=command.pid,
    )


@router.post("/exec", response_model=Envelope[BashExecResult])
async def execute(request: BashExecRequest, services: Injected) -> Response:
    """Run a command.

    Waits for its end, for `timeout` seconds at most; then the status is `running`, the output so far is there, and the
    command goes on. A session keeps folder and variables from one command to the next. An exit code other than 0 is not
    an error of the request.
    """
    shell = services.shell
    command = await shell.execute(
        request.command,
        session_id=request.session_id or None,
        directory=request.exec_dir,
        variables=request.env,
        stdin=request.stdin,
        interactive=request.async_mode if request.interactive is None else request.interactive,
        hard_timeout=request.hard_timeout,
        keep_links=bool(request.preserve_symlinks),
    )
    if not request.async_mode:
        await command.wait(shell.settings.command_timeout_s if request.timeout is None else request.timeout)
    return answer(ok(result(command, request.max_output_length)))


@router.post("/output", response_model=Envelope[BashOutputResult])
async def output(request: BashOutputRequest, services: Injected) -> Response:
    """Read what a command wrote since the given offsets; with `wait`, as soon as there is something."""
    shell = services.shell
    command = shell.find(request.session_id, request.command_id)
    if request.wait and request.offset >= command.stdout.size and request.stderr_offset >= command.stderr.size:
        await command.news(request.wait_timeout)
    limit = request.max_output_length or shell.settings.answer_output_chars
    final = not command.running
    stdout, offset = command.stdout.text(request.offset, limit, final)
    stderr, stderr_offset = command.stderr.text(request.stderr_offset, limit, final)
    data = BashOutputResult(
        session_id=command.session_id,
        stdout=stdout,
        stderr=stderr,
        offset=offset,
        stderr_offset=stderr_offset,
        more=final and (offset < command.stdout.size or stderr_offset < command.stderr.size),
        command=info(command),
    )
    return answer(ok(data))


@router.post("/write")
async def write(request: BashWriteRequest, services: Injected) -> Envelope[BashCommandInfo]:
    """Write to the input of a command that was started with async_mode or interactive."""
    command = services.shell.find(request.session_id, request.command_id)
    services.shell.write(command, request.input, end=request.eof)
    return ok(info(command))


@router.post("/kill")
async def kill(request: BashKillRequest, services: Injected) -> Envelope[BashCommandInfo]:
    """Signal a command and all that it started. What is left some seconds after SIGTERM gets SIGKILL."""
    command = services.shell.find(request.session_id, request.command_id)
    await services.shell.kill(command, request.signal, request.grace)
    return ok(info(command))


@router.get("/sessions")
async def sessions(services: Injected) -> Envelope[list[BashSessionInfo]]:
    """List the sessions."""
    return ok([_session_info(session) for session in services.shell.sessions.values()])


@router.post("/sessions/create")
async def create_session(request: BashSessionCreateRequest, services: Injected) -> Envelope[BashSessionInfo]:
    """Create a session, or return the one that has this name."""
    session = await services.shell.prepare(
        request.session_id or None, request.exec_dir, request.env or {}, request.snapshot_path
    )
    return ok(_session_info(session))


@router.post("/sessions/{session_id}/close")
async def close_session(session_id: str, services: Injected) -> Envelope[None]:
    """End a session and what runs in it."""
    services.shell.close(session_id)
    return ok(None)


direct = {"/v1/bash/exec": Direct(BashExecRequest, lambda request, services, _: execute(request, services))}
