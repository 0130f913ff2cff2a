"""Terminals: shells on pseudo-terminals that outlive their connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from sandbox_api import family, privileges, quotas
from sandbox_api.errors import SandboxError
from sandbox_api.settings import Settings
from sandbox_api.shell.process import CHUNK

SCROLLBACK = 512 * 1024
"""Scrollback replayed on reconnect, in bytes."""
AHEAD = 256 * 1024
"""Bytes that a program may be ahead of the reader before it has to wait, as on any terminal."""
MOST_COLUMNS = 1000
HANGUP_GRACE_S = 1.0


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Attachment:
    """One connection to a terminal; `position` is the offset that it has been sent."""

    def __init__(self, position: int) -> None:
        self.position = position


class Terminal:
    """An interactive shell. It has at most one reader at a time: the size of the screen is that reader's.

    Raises:
        OSError: no pseudo-terminal or process can be had.
    """

    def __init__(self, name: str, shell: Path, directory: Path, variables: Mapping[str, str]) -> None:
        import termios  # noqa: F401 - POSIX only, as what follows is

        self.id = name
        self.directory = directory
        self.created = self.used = time.time()
        self.exit_code: int | None = None
        self.attachment: Attachment | None = None
        self.size = 0
        self.mark = family.new_mark()
        self._tail = bytearray()
        self._changes: set[asyncio.Future[None]] = set()
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._master, slave = os.openpty()
        try:
            self.resize(80, 24)
            # A session's leader gets its controlling terminal by opening it; so no Python has to run between fork and
            # exec, and the spawn stays a vfork.
            attach = 'exec "$0" -i <>"$1" >&0 2>&0'
            program, arguments = privileges.dropped_program(
                shell, [shell.name, "-c", attach, str(shell), os.ttyname(slave)]
            )
            self._popen = subprocess.Popen(
                arguments,
                executable=program,
                cwd=directory,
                env={**variables, family.VARIABLE: self.mark, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._master)
            os.close(slave)
            raise
        # Ours stays open: until the shell has opened its own, reading would fail.
        self._slave = slave
        os.set_blocking(self._master, False)
        self._loop.add_reader(self._master, self._read)
        try:
            threading.Thread(target=self._wait, daemon=True).start()
        except RuntimeError:
            self._popen.kill()
            self._exited(self._popen.wait())
            raise

    @property
    def leader(self) -> int | None:
        """Its number while that leads a session; None once it is reaped."""
        return self._popen.pid if self._popen.returncode is None else None

    @property
    def ended(self) -> bool:
        return self.exit_code is not None

    def _wait(self) -> None:
        code = self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._exited, code)

    def _exited(self, code: int) -> None:
        if self.ended:
            return
        for _ in range(SCROLLBACK // CHUNK):
            if not self._read():
                break
        self.exit_code = code if code >= 0 else 128 - code
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        os.close(self._master)
        os.close(self._slave)
        self._changed()

    def _read(self) -> bool:
        try:
            data = os.read(self._master, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._master)
            return False
        self._append(data)
        if self.attachment and self.size - self.attachment.position > AHEAD and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._master)
        return True

    def _append(self, data: bytes) -> None:
        self.used = time.time()
        self.size += len(data)
        self._tail += data
        if len(self._tail) > 2 * SCROLLBACK:
            del self._tail[:-SCROLLBACK]
        self._changed()

    def note(self, text: str) -> None:
        """Show a line to the reader who is about to attach, and to later ones."""
        self._loop.call_soon(self._append, f"{text}\r\n".encode(errors="replace"))

    def _resume(self) -> None:
        if self._paused and not self.ended:
            self._paused = False
            self._loop.add_reader(self._master, self._read)

    def _changed(self) -> None:
        changes, self._changes = self._changes, set()
        for change in changes:
            _settle(change)

    async def change(self, timeout: float) -> bool:
        """Wait for output, the end, or another reader; False when there was none of it."""
        change = self._loop.create_future()
        self._changes.add(change)
        try:
            done, _ = await asyncio.wait([change], timeout=timeout)
            return bool(done)
        finally:
            self._changes.discard(change)

    def attach(self) -> tuple[Attachment, bytes]:
        """Become the reader, in place of whoever was. Returns what the screen's history is made of, too."""
        history = bytes(self._tail[-SCROLLBACK:])
        if len(history) < self.size:  # begins anywhere: better at a line's beginning
            history = history[history.find(b"\n") + 1 :]
        self.attachment = Attachment(self.size)
        self._resume()
        self._changed()
        return self.attachment, history

    def detach(self, attachment: Attachment) -> None:
        if self.attachment is attachment:
            self.attachment = None
            self.used = time.time()
            self._resume()

    def take(self, attachment: Attachment) -> bytes:
        """What the reader has not been given yet."""
        start = max(attachment.position, self.size - len(self._tail))
        begin = start - (self.size - len(self._tail))
        data = bytes(self._tail[begin : begin + CHUNK])
        attachment.position = start + len(data)
        if self.size - attachment.position <= AHEAD // 2:
            self._resume()
        return data

    async def serve(
        self, attachment: Attachment, sending: Coroutine[Any, Any, None], receiving: Coroutine[Any, Any, None]
    ) -> None:
        """Carry a connection both ways until either way ends; then its reader is gone."""
        tasks = [asyncio.create_task(sending), asyncio.create_task(receiving)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.detach(attachment)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def write(self, data: bytes) -> None:
        """Type this. Waits while the terminal takes no more."""
        self.used = time.time()
        while data and not self.ended:
            try:
                data = data[os.write(self._master, data[:4096]) :]
            except BlockingIOError:
                ready: asyncio.Future[None] = self._loop.create_future()
                self._loop.add_writer(self._master, _settle, ready)
                try:
                    await asyncio.wait([ready], timeout=5)
                finally:
                    if not self.ended:
                        self._loop.remove_writer(self._master)
            except OSError:
                return

    def resize(self, columns: int, rows: int) -> None:
        import fcntl
        import termios

        columns, rows = (max(1, min(number, MOST_COLUMNS)) for number in (columns, rows))
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Hang up: SIGHUP, and SIGKILL for what stays."""
        if self._popen.returncode is not None or self.ended:
            return
        family.send_to_one(signal.SIGHUP, self.mark, self.leader)
        self._loop.call_later(HANGUP_GRACE_S, self._kill)

    def _kill(self) -> None:
        family.send_to_one(family.KILL, self.mark, self.leader)


class Terminals:
    """All terminals, by session id."""

    def __init__(self, settings: Settings, environment: Callable[[], Mapping[str, str]]) -> None:
        self._settings = settings
        self._environment = environment
        self._terminals: dict[str, Terminal] = {}

    @property
    def all(self) -> dict[str, Terminal]:
        """Those whose shell runs."""
        self._terminals = {name: terminal for name, terminal in self._terminals.items() if not terminal.ended}
        return self._terminals

    def open(self, name: str | None, directory: Path) -> tuple[Terminal, bool]:
        """The terminal of this session, made if it is not there; and whether it was.

        Raises:
            SandboxError: `shell_unavailable`, `service_unavailable` without pseudo-terminals, `limit_reached`.
        """
        if name and (terminal := self.all.get(name)):
            return terminal, True
        if self._settings.shell is None:
            raise SandboxError("shell_unavailable", "this host has no shell")
        if len(self.all) >= self._settings.max_sessions:
            raise SandboxError(
                "limit_reached", f"{self._settings.max_sessions} terminals are open (SANDBOX_MAX_SESSIONS)"
            )
        name = name or secrets.token_hex(8)
        usable = privileges.may(directory, os.X_OK) and directory.is_dir()
        place = directory if usable else self._settings.workspace_path
        try:
            terminal = Terminal(name, self._settings.shell, place, self._environment())
        except (ImportError, OSError, RuntimeError) as error:
            raise quotas.reached(error) or SandboxError(
                "service_unavailable",
                f"this host gives no terminal: {error}",
                hint="Use /v1/shell/exec, which needs none.",
            ) from error
        self._terminals[name] = terminal
        if not usable:
            terminal.note(f"sandbox: the session's folder {directory} is not usable; this terminal is in {place}")
        return terminal, False

    def close(self, name: str) -> bool:
        """End the terminal of this session; False when there is none."""
        terminal = self.all.pop(name, None)
        if terminal:
            terminal.close()
        return terminal is not None

    def sweep(self) -> None:
        """End idle terminals: long without a reader, input and output, and nothing runs in them."""
        old = time.time() - self._settings.session_idle_s
        unused = [terminal for terminal in self.all.values() if terminal.attachment is None and terminal.used < old]
        if unused:
            processes = family.Snapshot()
            for terminal in unused:
                if processes.members(terminal.mark.__eq__) <= {terminal.leader}:
                    self.close(terminal.id)

    @property
    def leaders(self) -> list[int]:
        """Shells that have not been reaped."""
        return [terminal.leader for terminal in self.all.values() if terminal.leader is not None]
