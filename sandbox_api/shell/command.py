"""One command: its process, its output, its end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from sandbox_api import family
from sandbox_api.shell.process import STDERR, Process, Spawned
from sandbox_api.shell.spares import Spares
from sandbox_api.shell.spool import Spool

Status = Literal["pending", "running", "completed", "timed_out", "killed"]
MOST_TURNS = 2000
"""Changes between stdout and stderr whose order is remembered."""
KILL_GRACE_S = 2.0
"""Between SIGTERM and SIGKILL when nobody said otherwise."""
MERGED_BYTES = 2**20
"""Output that is shown in the order in which it came; of more, stdout is shown before stderr."""


class Command:
    """Starts at once. Every attribute may be read at any time; `exit_code` is None until the end, and 128 + N when
    signal N ended it (shell convention)."""

    def __init__(
        self,
        text: str,
        session_id: str,
        program: Path,
        arguments: Sequence[str],
        directory: Path,
        variables: Mapping[bytes, bytes],
        *,
        interactive: bool,
        hard_timeout: float,
        capacity: int,
        folder: Path,
        on_end: Callable[[Command], None],
        spares: Spares | None = None,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.text = text
        self.session_id = session_id
        self.directory = directory
        self.status: Status = "running"
        self.exit_code: int | None = None
        self.signal: str | None = None
        self.started = time.time()
        self.finished: float | None = None
        self.last_output = time.monotonic()
        self.kept_bytes = 0  # when it ended; for whoever bounds the sum
        self.spools = (Spool(capacity, folder), Spool(capacity, folder))
        self.stdout, self.stderr = self.spools
        self._turns: list[list[int]] = []
        self._forgotten = False
        self._timed_out = False
        self._killed: float | None = None
        self._changes: set[asyncio.Future[None]] = set()
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        spare = spares.run(os.fsencode(text), self._output, self._ended) if spares else None
        self._process = spare or Process(
            Spawned(program, arguments, directory, variables, interactive=interactive), self._output, self._ended
        )
        self._limit = self._loop.call_later(hard_timeout, self._time_is_up)
        self._kill_timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def mark(self) -> str:
        return self._process.mark

    @property
    def leader(self) -> int | None:
        """Its number while that leads a session, living or not; None once it is reaped."""
        return self._process.leader

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return round((self.finished or time.time()) - self.started, 4)

    def _output(self, stream: int, data: bytes) -> None:
        if self._forgotten:
            return
        self.spools[stream].append(data)
        self.last_output = time.monotonic()
        if self._turns and self._turns[-1][0] == stream:
            self._turns[-1][1] += len(data)
        elif len(self._turns) < MOST_TURNS:
            self._turns.append([stream, len(data)])
        self._changed()

    def note(self, text: str) -> None:
        """Say something to its reader, on stderr."""
        self._output(STDERR, text.encode(errors="surrogateescape"))

    def _ended(self, code: int) -> None:
        self.finished = time.time()
        self._limit.cancel()
        self.exit_code = code if code >= 0 else 128 - code
        if code < 0:
            try:
                self.signal = signal.Signals(-code).name
            except ValueError:
                self.signal = f"SIG{-code}"
        recently = self._killed is not None and time.monotonic() - self._killed < KILL_GRACE_S + 1
        if self._timed_out:
            self.status = "timed_out"
        else:
            self.status = "killed" if self._killed is not None and (code < 0 or recently) else "completed"
        self._on_end(self)
        self._changed()

    def _changed(self) -> None:
        if self._changes:
            changes, self._changes = self._changes, set()
            for change in changes:
                _settle(change)

    async def change(self, timeout: float | None) -> None:
        """Wait for new output or the end."""
        change = self._loop.create_future()
        self._changes.add(change)
        timer = None if timeout is None else self._loop.call_later(timeout, _settle, change)
        try:
            await change
        finally:
            self._changes.discard(change)
            if timer:
                timer.cancel()

    async def news(self, timeout: float) -> bool:
        """Wait for new output or the end; False when there was neither."""
        if not self.running:
            return True
        before = self.stdout.size, self.stderr.size
        await self.change(timeout)
        return not self.running or before != (self.stdout.size, self.stderr.size)

    async def wait(self, timeout: float, quiet: float | None = None) -> bool:
        """Wait for the end.

        Args:
            timeout: for so long at most.
            quiet: give up, too, when nothing was written for so long.

        Returns:
            True when it gave up because of `quiet`.
        """
        now = time.monotonic()
        deadline = now + timeout
        quiet_from = now
        while self.running and now < deadline:
            limit = deadline
            if quiet is not None:
                limit = min(limit, max(self.last_output, quiet_from) + quiet)
                if now >= limit:
                    return True
            await self.change(limit - now)
            now = time.monotonic()
        return False

    def write(self, data: bytes) -> bool:
        """Feed its input; False when it takes none (any more)."""
        return self._process.write(data)

    def close_input(self) -> None:
        self._process.close_input()

    def kill(self, number: int, grace: float | None = KILL_GRACE_S) -> None:
        """Send a signal to everything that it started.

        Args:
            grace: after a SIGTERM, seconds until what is left gets SIGKILL; None: never.
        """
        if number not in _HARMLESS:
            self._killed = time.monotonic()
        if number == signal.SIGTERM and grace is not None:
            self._cancel_kill()
            # It stays when the shell itself has ended: what the shell started may ignore SIGTERM.
            self._kill_timer = self._loop.call_later(grace, self._kill_rest)
        self._process.signal(number, last=self._kill_timer is None)

    def _kill_rest(self) -> None:
        self._kill_timer = None
        self._process.signal(family.KILL)

    def _cancel_kill(self) -> None:
        if self._kill_timer:
            self._kill_timer.cancel()
            self._kill_timer = None

    def _time_is_up(self) -> None:
        self._timed_out = True
        self.kill(signal.SIGTERM)

    def merged(self) -> str:
        """Both streams in the order in which they were read, or stdout before stderr when there is very much."""
        whole = self.stdout.size + self.stderr.size
        final = not self.running
        if whole <= MERGED_BYTES and sum(length for _, length in self._turns) == whole:
            parts = [spool.read(0, MERGED_BYTES)[0] for spool in self.spools]
            pieces, at = [], [0, 0]
            for stream, length in self._turns:
                pieces.append(parts[stream][at[stream] : at[stream] + length])
                at[stream] += length
            return b"".join(pieces).decode(errors="replace")
        texts = [spool.excerpt(MERGED_BYTES, final).text for spool in self.spools]
        return "\n".join(text for text in texts if text)

    @property
    def lingering(self) -> bool:
        """Whether background children of it hold its output open."""
        return self._process.lingering

    def forget(self) -> None:
        """Let go of the output of a finished command. Background children go on; what they write is thrown away."""
        self._forgotten = True
        for spool in self.spools:
            spool.close()

    def close(self) -> None:
        """Let go of it altogether, after everything that it started got SIGKILL."""
        self._limit.cancel()
        self._cancel_kill()
        self._killed = time.monotonic()
        self._process.close()
        if self.running:
            self._ended(-family.KILL)
        self.forget()


def _settle(change: asyncio.Future[None]) -> None:
    if not change.done():
        change.set_result(None)


_HARMLESS_NAMES = ("SIGSTOP", "SIGCONT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCHLD", "SIGTSTP")
_HARMLESS = {int(getattr(signal, name)) for name in _HARMLESS_NAMES if hasattr(signal, name)}
