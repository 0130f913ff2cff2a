"""Forms of requests and answers about code. Shapes follow the published `agent-sandbox` client, with more fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from sandbox_api.errors import SandboxError

Language = Literal["python", "javascript"]
Status = Literal["ok", "error", "timeout"]

ALIASES: dict[str, Language] = {
    "python": "python",
    "python3": "python",
    "py": "python",
    "ipython": "python",
    "javascript": "javascript",
    "js": "javascript",
    "node": "javascript",
    "nodejs": "javascript",
}


def language_of(name: object) -> Language:
    """The language behind a name or alias.

    Raises:
        SandboxError: `language_unknown`.
    """
    language = ALIASES.get(name.strip().lower()) if isinstance(name, str) else None
    if language is None:
        raise SandboxError("language_unknown", f"unknown language: {str(name)[:60]}")
    return language


AnyLanguage = Annotated[Language, BeforeValidator(language_of)]
SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
Timeout = Annotated[
    float | None, Field(gt=0, le=3600, description="Seconds; then it is interrupted, and ended if it ignores that.")
]
Code = Annotated[str, Field(description="Source code to run.")]
NEW_SESSION = "Session to run in; made if it does not exist."
CALL_CWD = "Absolute folder to run in. A session stays there."


class Output(BaseModel):
    """One output in the form of notebooks (nbformat 4)."""

    output_type: Literal["stream", "display_data", "execute_result", "error"]
    name: str | None = Field(None, description="stdout or stderr, for a stream.")
    text: str | None = Field(None, description="Text of a stream.")
    data: dict[str, Any] | None = Field(None, description="Result by MIME type; pictures in base64.")
    metadata: dict[str, Any] | None = None
    execution_count: int | None = None
    ename: str | None = None
    evalue: str | None = None
    traceback: list[str] | None = Field(None, description="With ANSI colours where the runtime gives them.")


class Execution(BaseModel):
    """What came of running code, in whichever language."""

    status: Status
    outputs: list[Output] = []
    code: str
    stdout: str = ""
    stderr: str = ""
    result: str | None = Field(None, description="Value of the last expression, as text.")
    traceback: list[str] | None = Field(None, description="Lines without colours, when the code failed.")
    exit_code: int = Field(0, description="0, or as a shell would tell it: 1 after an error, 124 after a timeout.")
    execution_count: int | None = None
    session_id: str | None = None
    new_session: bool = Field(False, description="Whether this call made the session: nothing from before is there.")
    restarted: bool = Field(False, description="Whether the process had to be ended: the session's state is lost.")
    left_out: dict[str, int] = Field({}, description="Characters that did not fit into the answer, by output.")
    note: str | None = Field(None, description="What the caller should know about this run.")
    seconds: float = Field(0.0, description="Time that the code ran.")

    def time_out(self, seconds: float, how: str | None = None) -> None:
        """Say that the time was over, and how the code was ended."""
        ended = "the process was ended, its state is lost" if self.restarted else "it was interrupted"
        self.status, self.exit_code = "timeout", 124
        self.note = f"The time of {seconds:g} s was over; {how or ended}."


class CodeExecuteRequest(BaseModel):
    language: AnyLanguage = Field(description="python or javascript; py, python3, js, node and nodejs mean the same.")
    code: Code
    timeout: Timeout = None
    cwd: str | None = Field(None, description=CALL_CWD)
    stateful: bool = Field(False, description="Keep variables for further calls with the answer's session_id.")
    session_id: SessionId | None = Field(None, description=NEW_SESSION + " It implies stateful.")


class CodeExecution(Execution):
    language: Language


class LanguageInfo(BaseModel):
    language: Language
    description: str
    runtime_version: str | None = None
    default_timeout: int = Field(ge=1)
    max_timeout: int = 3600
    details: dict[str, Any] = {}


class CodeInfo(BaseModel):
    languages: list[LanguageInfo]


class JupyterExecuteRequest(BaseModel):
    code: Code
    timeout: Timeout = None
    kernel_name: str | None = Field(None, description="python3, or the Python version that there is.")
    session_id: SessionId | None = Field(None, description=NEW_SESSION)
    cwd: str | None = Field(None, description=CALL_CWD)


class JupyterExecution(Execution):
    kernel_name: str
    msg_id: str | None = None


class JupyterCreateSession(BaseModel):
    session_id: SessionId | None = Field(None, description="Own name of the session.")
    kernel_name: str | None = None
    cwd: str | None = Field(None, description="Absolute folder that it starts in.")


class JupyterSessionCreated(BaseModel):
    session_id: str
    kernel_name: str
    message: str
    created: bool = True


class JupyterSession(BaseModel):
    kernel_name: str
    last_used: float = Field(description="Seconds since the epoch.")
    age_seconds: int
    state: Literal["IDLE", "EXECUTING"] = "IDLE"
    cwd: str | None = Field(None, description="Folder that it was last put into by a request.")


class JupyterSessions(BaseModel):
    sessions: dict[str, JupyterSession]


class JupyterInfo(BaseModel):
    default_kernel: str
    available_kernels: list[str]
    active_sessions: int
    session_timeout_seconds: int
    max_sessions: int
    description: str
    kernel_detection: str


class Interrupted(BaseModel):
    session_id: str
    interrupted: bool = Field(description="False when nothing ran.")


class Ended(BaseModel):
    ended: list[str] = Field(description="Sessions that were ended.")


class NodeExecuteRequest(BaseModel):
    code: Code
    timeout: Timeout = None
    stdin: str | None = Field(None, description="Standard input; stateless only.")
    files: dict[str, str] | None = Field(
        None,
        max_length=200,
        description="Text files by relative path. They and the code lie in a temporary folder inside cwd, which is "
        "where the code runs then; stateless only.",
    )
    stateful: bool | None = Field(False, description="Keep variables for further calls with the answer's session_id.")
    session_id: SessionId | None = Field(None, description=NEW_SESSION + " It implies stateful.")
    cwd: str | None = Field(None, description=CALL_CWD)
    version: str | None = Field(None, description="Major version, such as node24 or 24; it must be the one installed.")


class NodeExecution(Execution):
    language: Literal["javascript"] = "javascript"


class NodeCreateSession(BaseModel):
    session_id: SessionId | None = None
    cwd: str | None = None
    max_idle_time: int | None = Field(None, ge=60, le=86400, description="Seconds [SANDBOX_SESSION_IDLE_S].")


class NodeUpdateSession(BaseModel):
    max_idle_time: int | None = Field(None, ge=60, le=86400, description="Seconds.")
    cwd: str | None = None


class NodeSession(BaseModel):
    session_id: str
    cwd: str
    created_at: float = Field(description="Milliseconds since the epoch.")
    last_used: float = Field(description="Milliseconds since the epoch.")
    max_idle_time: int = Field(description="Milliseconds.")
    age_seconds: int = Field(description="Seconds since it was last used.")
    state: Literal["IDLE", "EXECUTING"]


class NodeSessionCreated(BaseModel):
    session_id: str
    created: bool
    message: str | None = None
    session: NodeSession | None = None


class NodeSessions(BaseModel):
    sessions: dict[str, NodeSession] = {}


class NodeSessionAnswer(BaseModel):
    session: NodeSession


class NodeSessionUpdated(BaseModel):
    updated: bool
    session: NodeSession


class NodeSessionDeleted(BaseModel):
    deleted: bool


class NodePackage(BaseModel):
    name: str
    version: str


class NodeInfo(BaseModel):
    node_version: str
    npm_version: str
    supported_languages: list[str] = ["javascript"]
    description: str
    runtime_directory: str | None = None
    global_npm_directory: str | None = None
    runtime_packages: list[NodePackage] = []
    global_packages: list[NodePackage] = []
    error: str | None = None
    available_versions: list[str] = []
    current_version: str | None = None
