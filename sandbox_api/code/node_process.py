"""Processes of Node.js."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox_api import family, privileges
from sandbox_api.code import process as processes
from sandbox_api.code.output import Collector, as_mapping
from sandbox_api.code.sessions import not_entered
from sandbox_api.environment import child_environment
from sandbox_api.errors import SandboxError
from sandbox_api.settings import Settings
from sandbox_api.unicode import loads

DRIVER = Path(__file__).with_name("driver.js")
GRACE_S = 2.0
"""Time to obey an interrupt, or to end."""
PIPES_S = 0.2
"""How long output may come after the process has ended: its children can hold the pipes open for ever."""
SETTLE_S = 0.001
LONGEST_ANSWER = 64 * 2**20


def parser_of(settings: Settings) -> str | None:
    """The folder of acorn, which parses JavaScript."""
    folder = settings.web_assets / "acorn" if settings.web_assets else None
    return str(folder) if folder and folder.is_dir() else None


class NodeDied(Exception):
    """The process has ended; the message says how."""


class Pipes(asyncio.SubprocessProtocol):
    """Hands over what a process writes, as text."""

    def __init__(self) -> None:
        self.sink: Callable[[str, str], None] | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        make = codecs.getincrementaldecoder("utf-8")
        self._open = {1: make("replace"), 2: make("replace")}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if (text := self._open[fd].decode(data)) and self.sink:
            self.sink("stdout" if fd == 1 else "stderr", text)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.pop(fd, None)
        if not self._open and not self.closed.done():
            self.closed.set_result(None)

    def process_exited(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Process:
    """A Node.js process in a group of its own."""

    transport: asyncio.SubprocessTransport

    def __init__(self) -> None:
        self.pipes = Pipes()
        self._mark = family.new_mark()

    async def spawn(self, settings: Settings, arguments: list[str], cwd: Path, **options: Any) -> None:
        assert settings.node is not None
        extra = {"NO_COLOR": "1", family.VARIABLE: self._mark, **options.pop("variables", {})}
        try:
            program, *words = privileges.dropped([str(settings.node), *arguments])
            self.transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: self.pipes, program, *words,
                cwd=cwd, env=child_environment(settings, extra), **processes.OWN_GROUP, **options,
            )  # fmt: skip
        except OSError as error:
            if not privileges.may(cwd, os.X_OK):
                raise not_entered(cwd, type(error).__name__, error.strerror or "") from error
            raise SandboxError("code_unavailable", f"{settings.node} cannot be started: {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self.transport.get_pid()

    @property
    def returncode(self) -> int | None:
        return self.transport.get_returncode()

    async def finish(self) -> None:
        """Kill what it started, and let go of its pipes."""
        await processes.kill(self.pid if self.returncode is None else None, self._mark)
        await asyncio.wait({self.pipes.ended}, timeout=GRACE_S)
        await asyncio.wait({self.pipes.closed}, timeout=PIPES_S)
        self.transport.close()


class NodeSession:
    """A process that keeps its state, with a channel for code and results beside its standard streams."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process = Process()
        self.renew_outputs()
        self._writer: asyncio.StreamWriter | None = None
        self.alive = False

    async def start(self, cwd: Path) -> None:
        variables = {"SANDBOX_TEXT_LIMIT": str(self._settings.answer_output_chars)}
        if parser := parser_of(self._settings):
            variables["SANDBOX_PARSER"] = parser
        ours, theirs = socket.socketpair()
        try:
            variables["SANDBOX_CHANNEL_FD"] = str(theirs.fileno())
            await self._process.spawn(
                self._settings, [str(DRIVER)], cwd,
                stdin=asyncio.subprocess.DEVNULL, variables=variables, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
            self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=LONGEST_ANSWER)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.alive = True

    async def send(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have the driver do something, and wait for its answer.

        Raises:
            NodeDied: the process ended.
        """
        assert self._writer is not None
        try:
            self._writer.write(json.dumps(request).encode() + b"\n")
            await self._writer.drain()
            while True:
                line = await self._reader.readline()
                if not line.endswith(b"\n"):
                    break
                answer = as_mapping(loads(line, None))
                if answer.get("id") == request["id"]:
                    # What was written before the answer lies in the pipes; the loop reads them in its next rounds.
                    for _ in range(3):
                        await asyncio.sleep(SETTLE_S)
                    return answer
        except (ConnectionError, ValueError):
            pass
        self.alive = False
        await asyncio.wait({self._process.pipes.ended}, timeout=PIPES_S)
        await asyncio.wait({self._process.pipes.closed}, timeout=PIPES_S)
        raise NodeDied(f"the Node.js process is gone: {processes.cause(self._process.returncode)}")

    def renew_outputs(self) -> None:
        """From now on output belongs to the next call; what timers write between two calls, too."""
        self.outputs = Collector(self._settings)
        self._process.pipes.sink = self.outputs.stream

    def interrupt(self) -> None:
        if self.alive:
            processes.interrupt(self._process.pid)

    async def end(self) -> None:
        self.alive = False
        if self._writer:
            self._writer.close()
        await self._process.finish()
