"""Requests and answers of /v1/bash."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from sandbox_api.shell.command import Status

LONGEST_COMMAND = 2**20

SESSION_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,128}")
SessionId = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.:@-]*$")]
Text = Annotated[str, Field(max_length=LONGEST_COMMAND)]
Seconds = Annotated[float, Field(ge=0, le=7 * 86400)]
HardSeconds = Annotated[float, Field(gt=0, le=30 * 86400)]
Environment = Annotated[dict[str, str], Field(max_length=1000)]


class Start(BaseModel):
    """What every way of running a command takes."""

    command: Text = Field(description="What the shell runs.")
    exec_dir: str | None = Field(None, description="Folder to run in, absolute [the session's; else the workspace].")
    env: Environment | None = Field(None, description="Variables for this command only.")
    stdin: Text | None = Field(None, description="Its whole input. Without it and `interactive` the input is empty.")
    interactive: bool | None = Field(
        None, description="Keep the input open for /write [only with async_mode]; else it ends at once."
    )
    hard_timeout: HardSeconds | None = Field(
        None, description="Seconds until everything it started is ended [SANDBOX_COMMAND_HARD_TIMEOUT_S]."
    )
    preserve_symlinks: bool | None = Field(False, description="Keep symbolic links in `pwd`.")


class BashExecRequest(Start):
    session_id: SessionId | None = Field(None, description="Session to run in; made when it does not exist.")
    async_mode: bool = Field(False, description="Answer at once; read on with /v1/bash/output.")
    timeout: Seconds | None = Field(
        None, description="Seconds until an answer comes in any case; the command goes on [SANDBOX_COMMAND_TIMEOUT_S]."
    )
    max_output_length: int = Field(
        50_000, ge=0, description="Characters of each stream in the answer; the middle is left out. 0: no limit."
    )


class Omission(BaseModel):
    """Bytes of a stream that are not in this answer; `/v1/bash/output` with this offset reads them."""

    offset: int
    bytes: int


class BashExecResult(BaseModel):
    session_id: str
    command_id: str
    command: str
    status: Status = Field(
        description="`running`; `completed`, whatever the exit code; `timed_out` by hard_timeout; `killed` by a signal."
    )
    stdout: str | None = ""
    stderr: str | None = ""
    exit_code: int | None = Field(None, description="128 + N when signal N ended it.")
    signal: str | None = Field(None, description="Signal that ended it.")
    offset: int = Field(0, description="Where stdout goes on; for /v1/bash/output.")
    stderr_offset: int = 0
    stdout_omitted: Omission | None = None
    stderr_omitted: Omission | None = None
    dropped: int = Field(0, description="Bytes of both streams that were too many to be kept.")
    seconds: float = Field(0, description="How long it has run.")
    pid: int | None = None


class BashOutputRequest(BaseModel):
    session_id: SessionId
    command_id: str | None = Field(None, max_length=64, description="[the session's latest command]")
    offset: int = Field(0, ge=0, description="Byte of stdout to read from.")
    stderr_offset: int = Field(0, ge=0, description="Byte of stderr to read from.")
    wait: bool = Field(False, description="Wait for something new, or for the end.")
    wait_timeout: Seconds = Field(30, description="Seconds to wait at most.")
    max_output_length: int | None = Field(
        None,
        ge=4,
        description="Characters of each stream in the answer [SANDBOX_ANSWER_OUTPUT_CHARS]; read on by offset.",
    )


class BashCommandInfo(BaseModel):
    command_id: str
    command: str
    status: Status
    exit_code: int | None = None
    signal: str | None = None
    stdout_bytes: int = Field(0, description="Written so far.")
    stderr_bytes: int = 0
    dropped: int = 0
    seconds: float = 0


class BashOutputResult(BaseModel):
    session_id: str
    stdout: str = ""
    stderr: str = ""
    offset: int = Field(0, description="Where stdout goes on.")
    stderr_offset: int = 0
    more: bool = Field(False, description="Whether more is there already.")
    command: BashCommandInfo | None = None


class BashWriteRequest(BaseModel):
    session_id: SessionId
    command_id: str | None = Field(None, max_length=64)
    input: Text = ""
    eof: bool = Field(False, description="End the input after this.")


class BashKillRequest(BaseModel):
    session_id: SessionId
    command_id: str | None = Field(None, max_length=64)
    signal: str = Field(
        "SIGTERM", max_length=16, description="Name of the signal; it goes to everything the command started."
    )
    grace: Annotated[float, Field(ge=0, le=600)] | None = Field(
        None, description="Seconds after SIGTERM until SIGKILL [2]."
    )


class BashSessionCreateRequest(BaseModel):
    session_id: SessionId | None = None
    exec_dir: str | None = Field(None, description="Folder that it starts in, absolute [the workspace].")
    snapshot_path: str | None = Field(None, description="Shell script that sets the session up, once.")
    env: Environment | None = Field(None, description="Variables of the session.")


class BashSessionInfo(BaseModel):
    session_id: str
    status: Literal["ready", "closed"]
    working_dir: str
    created_at: str
    last_used_at: str
    current_command: str | None = None
    command_count: int = 0
    commands: list[BashCommandInfo] = Field(default_factory=list, description="The latest ones.")
