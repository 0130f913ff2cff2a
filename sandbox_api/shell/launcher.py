"""How a command becomes a process: its shell, arguments and environment, and the session's state around it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox_api import privileges, quotas
from sandbox_api.environment import child_environment
from sandbox_api.errors import SandboxError
from sandbox_api.settings import Settings
from sandbox_api.shell import state
from sandbox_api.shell.command import Command
from sandbox_api.shell.session import Session
from sandbox_api.shell.spares import Spares

LONGEST_VARIABLE = 32 * mmap.PAGESIZE
"""Bytes of a variable, name included, that Linux no longer passes to a program."""


def _encode(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    """As the system takes them: once for all commands that have the same."""
    return {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}


def possible(variables: Mapping[str, str]) -> bool:
    """Whether the system can pass variables of these names and values."""
    try:
        _encode(variables)
    except UnicodeEncodeError:
        return False
    return all(name and "=" not in name and "\0" not in name + value for name, value in variables.items())


def _too_large(variables: Mapping[str, str]) -> SandboxError:
    """What the system refuses to pass to a program."""
    sizes = {name: len(os.fsencode(f"{name}={value}")) for name, value in variables.items()}
    name = max(sizes, key=sizes.__getitem__, default="")
    what = (
        f"the variable {name} has {sizes[name]} bytes"
        if name and sizes[name] >= LONGEST_VARIABLE
        else f"the variables of this command have {sum(sizes.values())} bytes, beside those of the sandbox"
    )
    return SandboxError(
        "too_large",
        f"{what}: more than the system passes to a program",
        hint="Write large values to a file, and give its path in a variable.",
    )


@dataclass(frozen=True)
class Options:
    """
    Attributes:
        variables: for this command only.
        interactive: keep its input open.
        hard_timeout: seconds until all that it started is ended.
        keep_links: `pwd` shows symbolic links as they were given.
    """

    variables: Mapping[str, str]
    interactive: bool
    hard_timeout: float
    keep_links: bool


class Launcher:
    """Starts commands in sessions."""

    def __init__(self, settings: Settings, workspace: Path) -> None:
        self._settings = settings
        self._workspace = workspace
        self._capacity = settings.command_output_bytes
        self._shell = settings.shell
        self._bash = self._shell is not None and "bash" in self._shell.name
        self._folder = settings.cache / "shell"
        self.environment: dict[str, str] = {}
        self._encoded: dict[bytes, bytes] = {}
        self.defaults: state.Items = {}
        self._spares: Spares | None = None

    async def prepare(self) -> None:
        """Make the folder for state, and find out what a fresh shell has."""
        shutil.rmtree(self._folder, ignore_errors=True)  # of an earlier run
        self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.environment = child_environment(self._settings)
        # Ours; the shell finds out its own.
        for name in ("PWD", "OLDPWD", "SHLVL", "_"):
            self.environment.pop(name, None)
        self._encoded = _encode(self.environment)
        if self._shell and self._bash:
            self._spares = Spares(self._shell, self._workspace, self._encoded)
            self._spares.refill()
        if self._shell:
            self.defaults = await asyncio.to_thread(self._read_defaults, self._shell)

    def _read_defaults(self, shell: Path) -> state.Items:
        """What a fresh shell has, for comparison with what the first commands of a session leave."""
        after = self._folder / "defaults"
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            program, arguments = privileges.dropped_program(
                shell, [shell.name, "-c", state.wrapped(":", self._bash, None, after)]
            )
            subprocess.run(
                arguments, executable=program, timeout=5,
                cwd=self._workspace, env=self._encoded, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            if left := state.read_dump(after.read_bytes()):
                return left[1]
        return {}

    def stop(self) -> None:
        if self._spares:
            self._spares.stop()

    def clean_up(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def refusal(self, error: OSError, place: Path, given: Mapping[str, str]) -> SandboxError:
        """Why a command did not start."""
        if error.filename == place or not place.is_dir():
            if isinstance(error, PermissionError):
                return SandboxError("permission_denied", f"commands may not run in {place}: {error.strerror}")
            return SandboxError("file_not_found", f"the working directory is not there: {place}")
        if error.errno == errno.E2BIG:
            return _too_large(given)
        if refusal := quotas.reached(error):
            return refusal
        if isinstance(error, FileNotFoundError | PermissionError) or error.errno == errno.ENOEXEC:
            return SandboxError("shell_unavailable", f"the shell {self._shell} does not start: {error.strerror}")
        return SandboxError("limit_reached", f"the system starts no further process: {error.strerror}")

    def start(
        self,
        session: Session,
        text: str,
        place: Path,
        options: Options,
        on_end: Callable[[Command], None],
        *,
        alone: bool,
    ) -> Command:
        """Start a command in a session.

        Args:
            alone: no other command runs.

        Raises:
            OSError: see `refusal`.
        """
        assert self._shell is not None
        carried = session.state
        keeps = carried.items is not None or state.may_change(text)
        given = options.variables
        links = options.keep_links or (keeps and place == carried.directory)
        if given or links or carried.items is not None:
            variables = _encode({**carried.environment(self.environment), **given})
            if links:
                variables[b"PWD"] = os.fsencode(place)  # else the shell finds out where the links lead
        else:
            variables = self._encoded
        files = (
            [self._folder / f"{secrets.token_hex(8)}.{kind}" for kind in ("command", "before", "after", "startup")]
            if keeps or len(text) > state.LONGEST_ARGUMENT // 4
            else []
        )
        # While others run there is no time to start shells ahead: then a spare saves nothing.
        plain = (
            alone and not options.interactive and variables is self._encoded and not files and place == self._workspace
        )
        argument = state.plain(text, files[0]) if files else text
        if keeps:
            _, before, after, startup = files
            script = carried.script(given)
            if script is not None:
                before.write_text(script, errors="surrogateescape", newline="")
            if self._bash and carried.traces and state.can_start_from_file(text, variables):
                startup.write_text(state.startup(before, after), errors="surrogateescape")
                variables[b"BASH_ENV"] = state.startup_name(startup)
            else:
                argument = state.wrapped(argument, self._bash, before if script is not None else None, after)
        number = session.count + 1
        if not session.commands:
            carried.move(place, number)
        start = carried.start(number)

        def ended(command: Command) -> None:
            if keeps:
                with contextlib.suppress(OSError), files[2].open("rb") as dump:
                    carried.follow(dump.read(state.LARGEST_STATE + 1), given.keys(), start)
                if session.running is None:
                    carried.settle()
            for file in files:
                file.unlink(missing_ok=True)
            on_end(command)

        try:
            command = Command(
                text, session.id, self._shell, [self._shell.name, "-c", argument], place, variables,
                interactive=options.interactive, hard_timeout=options.hard_timeout, capacity=self._capacity,
                folder=self._folder, on_end=ended, spares=self._spares if plain else None,
            )  # fmt: skip
        except OSError:
            for file in files:
                file.unlink(missing_ok=True)
            raise
        session.add(command)
        if not keeps:
            carried.move(place, number)
        return command
