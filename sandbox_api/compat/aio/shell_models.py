"""Requests and answers of /v1/shell."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from sandbox_api.shell.models import Omission, Seconds, SessionId, Start, Text

ShellStatus = Literal["running", "completed", "no_change_timeout", "hard_timeout", "terminated"]
OnDisconnect = Literal["kill", "detach"]


class ShellExecRequest(Start):
    id: SessionId | None = Field(None, description="Session to run in; made when it does not exist.")
    async_mode: bool = Field(False, description="Answer at once.")
    timeout: Seconds | None = Field(
        None, description="Seconds until an answer comes in any case; the command goes on [SANDBOX_COMMAND_TIMEOUT_S]."
    )
    strict: bool | None = Field(None, description="False: run in the session's folder when exec_dir is not there.")
    no_change_timeout: Seconds | None = Field(None, description="Answer when nothing was written for so many seconds.")
    truncate: bool = Field(True, description="Leave out the middle of much output.")


class ConsoleRecord(BaseModel):
    ps1: str = Field(description="What a prompt would show.")
    command: str
    output: str = ""


class ShellCommandResult(BaseModel):
    session_id: str
    command_id: str
    command: str
    status: ShellStatus
    output: str | None = Field(None, description="stdout and stderr in the order in which they came.")
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    console: list[ConsoleRecord] | None = None
    offset: int = 0
    stderr_offset: int = 0
    stdout_omitted: Omission | None = None
    stderr_omitted: Omission | None = None
    dropped: int = 0
    seconds: float = 0
    pid: int | None = None


class ShellViewRequest(BaseModel):
    id: SessionId


class ShellViewResult(BaseModel):
    output: str
    session_id: str
    console: list[ConsoleRecord] | None = None
    status: ShellStatus
    command: str | None = None
    exit_code: int | None = None


class ShellWaitRequest(BaseModel):
    id: SessionId
    seconds: Seconds | None = Field(None, description="How long to wait [30].")
    max_wait_seconds: Seconds | None = Field(None, description="The same.")


class ShellWaitResult(BaseModel):
    status: ShellStatus
    exit_code: int | None = None


class ShellWriteToProcessRequest(BaseModel):
    id: SessionId
    input: Text
    press_enter: bool = Field(description="Add a line end.")


class ShellWriteResult(BaseModel):
    status: ShellStatus


class ShellKillProcessRequest(BaseModel):
    id: SessionId


class ShellKillResult(BaseModel):
    status: ShellStatus
    exit_code: int | None = None
    returncode: int | None = Field(None, description="The same as exit_code.")


class ShellCreateSessionRequest(BaseModel):
    id: SessionId | None = None
    exec_dir: str | None = None
    no_change_timeout: Seconds | None = None
    preserve_symlinks: bool | None = False


class ShellCreateSessionResponse(BaseModel):
    session_id: str
    working_dir: str


class ShellUpdateSessionRequest(BaseModel):
    id: SessionId
    no_change_timeout: Seconds | None = None


class ShellSessionInfo(BaseModel):
    working_dir: str
    created_at: str
    last_used_at: str
    age_seconds: int
    status: str
    current_command: str | None = None


class ActiveShellSessionsResult(BaseModel):
    sessions: dict[str, ShellSessionInfo]


class ShellSessionStats(BaseModel):
    total_sessions: int
    active_sessions: int = Field(description="Used in the last five minutes.")
    idle_sessions: int
    max_sessions: int
    session_timeout: int
    usage_ratio: float
    running_commands: int = 0
    terminals: int = 0


class StreamRequest(Start):
    session_id: SessionId | None = None
    on_disconnect: OnDisconnect = Field("kill", description="What becomes of the command when the reader goes away.")
