"""Runs commands in sessions, within limits."""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox_api import family, privileges
from sandbox_api.errors import SandboxError
from sandbox_api.health import Health
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings
from sandbox_api.shell.command import Command
from sandbox_api.shell.launcher import Launcher, Options, possible
from sandbox_api.shell.process import LARGEST_INPUT, signal_number
from sandbox_api.shell.session import Session
from sandbox_api.shell.state import State
from sandbox_api.shell.terminal import Terminals

KEPT_COMMANDS = 128
"""Finished commands whose output can still be read."""
KEPT_BYTES = 256 * 2**20
"""Output of finished commands that is kept at most, all together."""
SWEEP_S = 15.0


def _version_text(shell: Path) -> str:
    run = subprocess.run(
        privileges.dropped([str(shell), "--version"]),
        capture_output=True,
        timeout=5,
        check=False,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    return run.stdout.partition("\n")[0]


class ShellService:
    """Commands and sessions. `run` is the whole of it for callers in this process; the rest is for the routes."""

    def __init__(self, settings: Settings, paths: Confinement) -> None:
        self.settings = settings
        self._paths = paths
        self._shell = settings.shell
        self._launcher = Launcher(settings, paths.workspace)
        self.sessions: dict[str, Session] = {}
        self._running = 0
        self._finished: dict[str, Command] = {}
        self._kept_bytes = 0
        self._left: list[Command] = []  # forgotten, but background children of them still write
        self._sweeper: asyncio.Task[None] | None = None
        self._version: str | None = None
        self.terminals = Terminals(settings, lambda: self._launcher.environment)

    async def start(self) -> None:
        await self._launcher.prepare()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        if self._sweeper:
            self._sweeper.cancel()
        self._launcher.stop()
        leaders = [leader for session in self.sessions.values() for leader in session.leaders]
        family.send(family.KILL, family.of_this_server, leaders + self.terminals.leaders)
        for session in list(self.sessions.values()):
            self._let_go(session)
        for command in self._left:
            command.close()
        await asyncio.to_thread(self._launcher.clean_up)

    async def health(self) -> Health:
        if self._shell is None:
            return Health(status="unavailable", detail="no shell; set SANDBOX_SHELL")
        if self._version is None:
            try:
                result = await asyncio.to_thread(_version_text, self._shell)
            except (OSError, subprocess.TimeoutExpired) as error:
                return Health(status="failed", detail=f"{self._shell} does not run: {error}")
            found = re.search(r"version (\S+)", result)
            self._version = found[1] if found else self._shell.name
        return Health(
            status="ready",
            version=self._version,
            address="/terminal",
            detail=f"{self._shell}; {self._running} commands run",
        )

    @property
    def running(self) -> int:
        """Commands that run."""
        return self._running

    # Sessions

    def session(self, session_id: str) -> Session:
        """Raises: SandboxError: `session_not_found`."""
        try:
            return self.sessions[session_id]
        except KeyError:
            raise SandboxError("session_not_found", f"there is no session {session_id}") from None

    def create(self, session_id: str | None, directory: str | None = None, *, kept: bool = True) -> Session:
        """The session of this name, made if it is not there.

        Raises:
            SandboxError: `limit_reached`, and those of `Confinement.directory`.
        """
        if session_id and (session := self.sessions.get(session_id)):
            if kept and not session.kept:
                self._make_room()
                session.kept = True
            session.used = time.time()
            return session
        if kept:
            self._make_room()
        session = Session(
            session_id or secrets.token_hex(8), State(self._paths.directory(directory), self._launcher.defaults), kept
        )
        self.sessions[session.id] = session
        return session

    async def prepare(
        self, session_id: str | None, directory: str | None, variables: Mapping[str, str], snapshot: str | None
    ) -> Session:
        """The session of this name, made and set up if it is not there.

        Args:
            variables: of the session.
            snapshot: shell script to run in it first.

        Raises:
            SandboxError: as `create` and `execute`; `file_not_found` for the snapshot.
        """
        if session_id in self.sessions:
            return self.create(session_id)
        if snapshot is not None and not await asyncio.to_thread(Path(snapshot).is_file):
            raise SandboxError("file_not_found", f"there is no snapshot {snapshot}")
        session = self.create(session_id, directory)
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        if snapshot is not None:
            lines.append(f". {shlex.quote(snapshot)}")
        if lines:
            if not all(name.isidentifier() for name in variables):
                self._let_go(session)
                raise SandboxError("invalid_request", "a variable has an impossible name")
            await self.run("\n".join(lines), session_id=session.id)
        return session

    def _make_room(self) -> None:
        if sum(session.kept for session in self.sessions.values()) >= self.settings.max_sessions:
            raise SandboxError(
                "limit_reached",
                f"{self.settings.max_sessions} sessions exist (SANDBOX_MAX_SESSIONS)",
                hint="Close a session that is not needed any more.",
            )

    def close(self, session_id: str) -> None:
        """End a session, its terminal, and what runs in them.

        Raises:
            SandboxError: `session_not_found`.
        """
        if not self.terminals.close(session_id) or session_id in self.sessions:
            self._end([self.session(session_id)])

    def close_all(self) -> int:
        sessions = list(self.sessions.values())
        self._end(sessions)
        for name in list(self.terminals.all):
            self.terminals.close(name)
        return len(sessions)

    def _end(self, sessions: Sequence[Session]) -> None:
        """Kill all that these sessions started, and let go of them."""
        marks = {mark for session in sessions for mark in session.marks}
        leaders = [leader for session in sessions for leader in session.leaders]
        family.send(family.KILL, marks.__contains__, leaders)
        for session in sessions:
            self._let_go(session)

    def _let_go(self, session: Session) -> None:
        self.sessions.pop(session.id, None)
        for command in session.commands:
            command.close()
            self._discard(command)
        session.commands.clear()

    def find(self, session_id: str, command_id: str | None = None) -> Command:
        """A command of a session; the latest one when none is named.

        Raises:
            SandboxError: `session_not_found`, `command_not_found`.
        """
        session = self.session(session_id)
        session.used = time.time()
        if command_id:
            for command in session.commands:
                if command.id == command_id:
                    return command
            raise SandboxError("command_not_found", f"session {session_id} has no command {command_id}")
        latest = session.running or session.latest
        if latest is None:
            raise SandboxError("command_not_found", f"session {session_id} has run no command yet")
        return latest

    # Commands

    async def execute(
        self,
        text: str,
        *,
        session_id: str | None = None,
        directory: str | None = None,
        strict: bool = True,
        variables: Mapping[str, str] | None = None,
        stdin: str | None = None,
        interactive: bool = False,
        hard_timeout: float | None = None,
        keep_links: bool = False,
    ) -> Command:
        """Start a command.

        Args:
            session_id: session to run in, made when it does not exist; None makes one for this command alone.
            directory: folder to run in, absolute.
            strict: False takes the session's folder when `directory` is not there.
            variables: for this command only.
            stdin: its whole input.
            interactive: keep its input open for `Command.write`.
            hard_timeout: seconds until all that it started is ended.
            keep_links: `pwd` shows symbolic links as they were given.

        Raises:
            SandboxError: `shell_unavailable`, `invalid_request`, `limit_reached`, `path_not_absolute`,
                `file_not_found`, `not_a_directory`, `permission_denied`, `too_large`, `disk_full`, `quota_exceeded`.
        """
        if self._shell is None:
            raise SandboxError("shell_unavailable", "this host has no shell")
        if "\0" in text or not possible(variables or {}):
            raise SandboxError("invalid_request", "the command or a variable has a NUL character or an impossible name")
        if self._running >= self.settings.max_commands:
            raise SandboxError("limit_reached", f"{self._running} commands run (SANDBOX_MAX_COMMANDS)")
        chosen = self._directory(directory, strict)
        session = self.create(session_id, kept=session_id is not None)
        place = chosen or session.directory
        gone: str | None = None
        options = Options(
            variables or {}, interactive or stdin is not None,
            hard_timeout or self.settings.command_hard_timeout_s, keep_links or session.keep_links,
        )  # fmt: skip
        try:
            try:
                command = self._launch(session, text, place, options)
            except OSError as error:
                if chosen or error.filename != place or place == self._paths.workspace:
                    raise
                # Nobody could leave a session whose folder has been removed: its `cd` would not start either.
                gone, place = f"the session's folder {place} is not usable ({error.strerror})", self._paths.workspace
                command = self._launch(session, text, place, options)
        except OSError as error:
            if not session.commands and not session.kept:
                self.sessions.pop(session.id)
            raise self._launcher.refusal(error, place, variables or {}) from error
        if gone:
            command.note(f"sandbox: {gone}; this command runs in {place}\n")
        if stdin is not None:
            if not command.write(stdin.encode(errors="surrogateescape")):
                command.close_input()
            if not interactive:
                command.close_input()
        return command

    def _directory(self, directory: str | None, strict: bool) -> Path | None:
        if directory is None:
            return None
        try:
            return self._paths.directory(directory)
        except SandboxError:
            if strict:
                raise
            return None

    def _launch(self, session: Session, text: str, place: Path, options: Options) -> Command:
        command = self._launcher.start(session, text, place, options, self._ended, alone=not self._running)
        self._running += 1
        return command

    async def run(
        self,
        text: str,
        *,
        timeout: float | None = None,
        session_id: str | None = None,
        directory: str | None = None,
        variables: Mapping[str, str] | None = None,
        hard_timeout: float | None = None,
    ) -> Command:
        """Start a command and wait for its end, for `timeout` seconds at most (it goes on after that).

        Raises:
            SandboxError: as `execute`.
        """
        command = await self.execute(
            text, session_id=session_id, directory=directory, variables=variables, hard_timeout=hard_timeout
        )
        await command.wait(self.settings.command_timeout_s if timeout is None else timeout)
        return command

    def write(self, command: Command, text: str, *, end: bool = False) -> None:
        """Feed a command's input.

        Raises:
            SandboxError: `command_finished`, `conflict` when it takes no input.
        """
        if not command.running:
            raise SandboxError("command_finished", f"command {command.id} has ended")
        if text and not command.write(text.encode(errors="surrogateescape")):
            raise SandboxError(
                "conflict",
                f"command {command.id} takes no input now: it has none, or {LARGEST_INPUT} bytes wait already",
                hint="Start it with async_mode or interactive; wait until it has read what waits.",
            )
        if end:
            command.close_input()

    async def kill(self, command: Command, name: str, grace: float | None = None) -> None:
        """Signal all that a command started; wait for its end where the signal means that.

        Raises:
            SandboxError: `invalid_request` for an unknown signal.
        """
        number = signal_number(name)
        if number is None:
            raise SandboxError("invalid_request", f"there is no signal {name}", hint="Use SIGTERM, SIGKILL or SIGINT.")
        patience = 2.0 if grace is None else grace
        command.kill(number, patience)
        if name.upper().removeprefix("SIG") in ("TERM", "KILL"):
            await command.wait(patience + 1)

    # Forgetting

    def _ended(self, command: Command) -> None:
        """Keep the finished commands within their number and bytes; the oldest go first."""
        self._running -= 1
        if session := self.sessions.get(command.session_id):
            session.used = time.time()
        self._finished[command.id] = command
        command.kept_bytes = command.stdout.kept + command.stderr.kept
        self._kept_bytes += command.kept_bytes
        while len(self._finished) > KEPT_COMMANDS or (self._kept_bytes > KEPT_BYTES and len(self._finished) > 1):
            self._forget(next(iter(self._finished.values())))

    def _discard(self, command: Command) -> None:
        if self._finished.pop(command.id, None):
            self._kept_bytes -= command.kept_bytes

    def _forget(self, command: Command) -> None:
        self._discard(command)
        command.forget()
        if command.lingering:
            self._left.append(command)
            if len(self._left) > KEPT_COMMANDS:
                self._left.pop(0).close()
        if session := self.sessions.get(command.session_id):
            session.commands.remove(command)
            if not session.kept and not session.commands:
                del self.sessions[session.id]

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_S, self.settings.session_idle_s / 2))
            old = time.time() - self.settings.session_idle_s
            for command in list(self._finished.values()):
                if (command.finished or old) < old:
                    self._forget(command)
            self._left = [command for command in self._left if command.lingering]
            idle = [session for session in self.sessions.values() if session.used < old and session.running is None]
            if idle:
                processes = family.Snapshot()
                for session in idle:
                    # A server that a command left behind is in use as long as it runs.
                    if not processes.members(session.marks.__contains__, session.leaders):
                        self._let_go(session)
            self.terminals.sweep()
