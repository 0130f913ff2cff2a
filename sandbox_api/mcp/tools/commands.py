"""Commands and code."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from sandbox_api.code.service import CodeService
from sandbox_api.errors import SandboxError
from sandbox_api.mcp.registry import Picture, Result
from sandbox_api.shell.command import Command
from sandbox_api.shell.service import ShellService

PATIENCE_S = 50
"""Clients commonly give a call up after 60 s."""
LONGEST_WAIT_S = 600
MOST_PICTURES = 5
PICTURES = ("image/png", "image/jpeg")

Session = Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
Wait = Annotated[float, Field(ge=0, le=LONGEST_WAIT_S)]


class CommandResult(Result):
    status: Literal["pending", "running", "completed", "timed_out", "killed"]
    exit_code: int | None = Field(None, description="128 + N when signal N ended it.")
    stdout: str = ""
    stderr: str = ""
    command_id: str = Field(description="For command_output and stop_command.")
    stdout_offset: int = Field(0, description="Where to read on.")
    stderr_offset: int = 0
    omitted_bytes: int = Field(0, description="Left out of the middle; command_output reads them by their offset.")
    seconds: float = 0

    def words(self) -> str:
        parts = [self.stdout.rstrip("\n")] if self.stdout else []
        if self.stderr:
            parts.append("[stderr]\n" + self.stderr.rstrip("\n"))
        state = f"exit code {self.exit_code}" if self.status == "completed" else self.status.replace("_", " ")
        more = f"; command_id {self.command_id}" if self.status == "running" or self.omitted_bytes else ""
        if self.status == "running":
            more += f", stdout_offset {self.stdout_offset}, stderr_offset {self.stderr_offset}"
        if self.omitted_bytes:
            more += f"; {self.omitted_bytes} bytes left out"
        return "\n".join([*parts, f"[{state}{more}]"])


class CodeResult(Result):
    status: Literal["ok", "error", "timeout"]
    stdout: str = ""
    stderr: str = ""
    result: str | None = Field(None, description="Value of the last expression.")
    error: str | None = Field(None, description="Traceback, when the code failed.")
    session: str | None = None
    note: str | None = None
    picture_count: int = 0
    _pictures: list[Picture] = PrivateAttr(default_factory=list)

    def words(self) -> str:
        parts = [self.stdout.rstrip("\n")] if self.stdout else []
        parts += ["[stderr]\n" + self.stderr.rstrip("\n")] if self.stderr else []
        parts += [f"[result]\n{self.result}"] if self.result is not None else []
        parts += [f"[{self.status}]\n{self.error}" if self.error else f"[{self.status}]"] if self.status != "ok" else []
        parts += [f"[note] {self.note}"] if self.note else []
        return "\n".join(parts) or "[no output]"

    def pictures(self) -> list[Picture]:
        return self._pictures


class CommandTools:
    def __init__(self, shell: ShellService, code: CodeService, most: int) -> None:
        self._shell = shell
        self._code = code
        self._most = most

    def _find(self, command_id: str) -> Command:
        for session in self._shell.sessions.values():
            for command in session.commands:
                if command.id == command_id:
                    return command
        raise SandboxError("command_not_found", f"there is no command {command_id[:100]}")

    def _result(self, command: Command) -> CommandResult:
        final = not command.running
        out, err = (spool.excerpt(self._most, final) for spool in command.spools)
        return CommandResult(
            status=command.status, exit_code=command.exit_code, stdout=out.text, stderr=err.text,
            command_id=command.id, stdout_offset=out.end, stderr_offset=err.end,
            omitted_bytes=out.omitted + err.omitted, seconds=command.seconds,
        )  # fmt: skip

    async def run_command(
        self,
        command: Annotated[str, Field(description="What the shell runs.", min_length=1, max_length=2**20)],
        cwd: Annotated[str | None, Field(description="Absolute folder to run in [the workspace].")] = None,
        wait: Annotated[
            Wait, Field(description="Seconds to wait for its end. 0 for a server: answer at once.")
        ] = PATIENCE_S,
        session: Annotated[
            Session, Field(description="Name of a session; it keeps folder and variables between commands.")
        ] = None,
        stdin: Annotated[str | None, Field(description="The command's input.", max_length=2**20)] = None,
    ) -> CommandResult:
        """Run a shell command in the sandbox and return its output and exit code.

        A command that has not ended after `wait` seconds goes on; its status is then `running`, and command_output
        reads further. Each call starts in the workspace with a fresh environment unless `session` is given.
        """
        started = await self._shell.execute(command, session_id=session, directory=cwd, stdin=stdin)
        await started.wait(wait)
        return self._result(started)

    async def command_output(
        self,
        command_id: str,
        stdout_offset: Annotated[int, Field(ge=0, description="Byte to read on from.")] = 0,
        stderr_offset: Annotated[int, Field(ge=0)] = 0,
        wait: Annotated[Wait, Field(description="Seconds to wait for something new or the end.")] = 0,
    ) -> CommandResult:
        """Read what a command wrote since the given offsets, and whether it still runs."""
        command = self._find(command_id)
        if stdout_offset >= command.stdout.size and stderr_offset >= command.stderr.size and wait:
            await command.news(wait)
        final, limit = not command.running, self._most
        stdout, stdout_end = command.stdout.text(stdout_offset, limit, final)
        stderr, stderr_end = command.stderr.text(stderr_offset, limit, final)
        return CommandResult(
            status=command.status, exit_code=command.exit_code, stdout=stdout, stderr=stderr, command_id=command.id,
            stdout_offset=stdout_end, stderr_offset=stderr_end, seconds=command.seconds,
        )  # fmt: skip

    async def stop_command(
        self,
        command_id: str,
        force: Annotated[bool, Field(description="Kill at once, without the chance to tidy up.")] = False,
    ) -> CommandResult:
        """End a command and everything that it started."""
        command = self._find(command_id)
        if command.running:
            await self._shell.kill(command, "SIGKILL" if force else "SIGTERM")
        return self._result(command)

    async def run_code(
        self,
        code: Annotated[str, Field(min_length=1)],
        language: Literal["python", "javascript"] = "python",
        session: Annotated[
            Session, Field(description="Name of a session; it keeps variables between calls. Made when it is new.")
        ] = None,
        cwd: Annotated[str | None, Field(description="Absolute folder to run in [the workspace].")] = None,
        timeout: Annotated[float, Field(gt=0, le=LONGEST_WAIT_S, description="Seconds; then it is stopped.")] = 30,
    ) -> CodeResult:
        """Run Python (Jupyter) or JavaScript (Node.js) and return output, value of the last expression and pictures.

        Without `session` every call starts anew.
        """
        done = await self._code.execute(language, code, session_id=session, cwd=cwd, timeout=timeout)
        result = CodeResult(
            status=done.status, stdout=done.stdout, stderr=done.stderr, result=done.result,
            error="\n".join(done.traceback) if done.traceback else None, session=done.session_id, note=done.note,
        )  # fmt: skip
        pictures = [picture for output in done.outputs for picture in _pictures(output.data or {})]
        result._pictures = pictures[:MOST_PICTURES]
        result.picture_count = len(result._pictures)
        return result


def _pictures(data: dict[str, Any]) -> list[Picture]:
    found = []
    for mime in PICTURES:
        try:
            found += [Picture(base64.b64decode(data[mime]), mime)] if isinstance(data.get(mime), str) else []
        except binascii.Error:
            continue
    return found
