"""Processes of commands: started, fed, read and signalled without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sandbox_api import family, privileges

CHUNK = 64 * 1024
DRAIN_S = 0.1
"""How long output is awaited after the shell has ended while one of its children keeps the pipe open."""
LARGEST_INPUT = 2**20
"""Bytes of input that wait for a program that does not read."""

STDOUT, STDERR = 0, 1
Output = Callable[[int, bytes], None]
Ended = Callable[[int], None]


def _descriptor_of_end(pid: int) -> int:
    """A descriptor that becomes readable when a child of ours has ended.

    Raises:
        OSError: for want of descriptors or threads.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    # Forbidden in this container, or unknown to its kernel.
    read, write = os.pipe()

    def wait() -> None:
        with contextlib.suppress(ChildProcessError), open(write, "wb"):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    threading.Thread(target=wait, daemon=True).start()
    return read


class Spawned:
    """A process, leader of a session and group of its own, and our ends of its pipes; nobody listens to them yet.

    Args:
        arguments: begin with the name that it sees itself by.
        interactive: give it an input to write to; else it reads an empty one.
        inherited: descriptors that it gets, too.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        program: Path,
        arguments: Sequence[str],
        directory: Path,
        variables: Mapping[bytes, bytes],
        *,
        interactive: bool = False,
        inherited: tuple[int, ...] = (),
    ) -> None:
        self.mark = family.new_mark()
        ours: list[int] = []
        theirs: list[int] = []
        executable, words = privileges.dropped_program(program, arguments)
        try:
            for _ in (STDOUT, STDERR):
                read, write = os.pipe()
                ours.append(read)
                theirs.append(write)
            if interactive:
                read, write = os.pipe()
                ours.append(write)
                theirs.append(read)
            self.popen = subprocess.Popen(
                words,
                executable=executable,
                cwd=directory,
                env={**variables, family.VARIABLE.encode(): self.mark.encode()},
                stdin=theirs[2] if interactive else subprocess.DEVNULL,
                stdout=theirs[STDOUT],
                stderr=theirs[STDERR],
                start_new_session=True,
                pass_fds=inherited,
            )
        except BaseException:
            for descriptor in (*ours, *theirs):
                os.close(descriptor)
            raise
        for descriptor in theirs:
            os.close(descriptor)
        for descriptor in ours:
            os.set_blocking(descriptor, False)
        self.outputs = dict(enumerate(ours[:2]))
        self.input = ours[2] if interactive else None
        try:
            self.pidfd = _descriptor_of_end(self.popen.pid)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """End it unheard."""
        for descriptor in (*self.outputs.values(), *([] if self.input is None else [self.input])):
            os.close(descriptor)
        if hasattr(self, "pidfd"):
            os.close(self.pidfd)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class Process:
    """A running command: pipes and a pidfd in the event loop.

    Its callbacks come on the event loop: `output(stream, data)`, also after the end while background children write;
    `ended(code)` once, negative for a signal.
    """

    def __init__(self, spawned: Spawned, output: Output, ended: Ended) -> None:
        self._loop = asyncio.get_running_loop()
        self._output, self._ended = output, ended
        self._waiting = bytearray()
        self._closing_input = False
        self._over = False
        self._held = False
        self._popen = spawned.popen
        self.mark = spawned.mark
        self.pid = self._popen.pid
        self._pidfd: int | None = spawned.pidfd
        self._input = spawned.input
        self._outputs = spawned.outputs
        for stream, descriptor in self._outputs.items():
            self._loop.add_reader(descriptor, self._read, stream)
        self._loop.add_reader(spawned.pidfd, self._exited)

    def _read(self, stream: int) -> bool:
        """One chunk; True when more may be there."""
        descriptor = self._outputs.get(stream)
        if descriptor is None:
            return False
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._output(stream, data)
            return True
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        del self._outputs[stream]
        if not self._outputs and self._pidfd is None:
            if self._over:
                self._reap()
            else:
                self._finish()
        return False

    def _drop_pidfd(self) -> None:
        assert self._pidfd is not None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = None

    def _exited(self) -> None:
        self._drop_pidfd()
        self._drop_input()
        for stream in tuple(self._outputs):
            # What a full pipe holds, and no more: a child that floods must not keep us here.
            for _ in range(2**20 // CHUNK):
                if not self._read(stream):
                    break
        if self._outputs:
            self._loop.call_later(DRAIN_S, self._finish)
        else:
            self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert result is not None
        code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        if self._held:
            self._held = bool(family.Snapshot().members(self.mark.__eq__, (self.pid,)))
        self._reap()
        self._ended(code)

    def _reap(self) -> None:
        """Not while background children write or are to be killed: as a zombie, the leader keeps its number."""
        if not self._outputs and not self._held and self._pidfd is None:
            self._popen.wait()

    @property
    def leader(self) -> int | None:
        """Its number while that leads a session, living or not; None once it is reaped."""
        return self.pid if self._popen.returncode is None else None

    @property
    def lingering(self) -> bool:
        """Whether it or its children may still write."""
        return bool(self._outputs)

    def write(self, data: bytes) -> bool:
        """Feed its input; False when too much waits already, or the input is closed."""
        if self._input is None or self._closing_input or len(self._waiting) + len(data) > LARGEST_INPUT:
            return False
        idle = not self._waiting
        self._waiting += data
        if idle:
            self._feed()
        return True

    def _feed(self) -> None:
        assert self._input is not None
        try:
            while self._waiting:
                del self._waiting[: os.write(self._input, self._waiting[:CHUNK])]
        except BlockingIOError:
            self._loop.add_writer(self._input, self._feed)
            return
        except OSError:
            self._drop_input()
            return
        self._loop.remove_writer(self._input)
        if self._closing_input:
            self._drop_input()

    def close_input(self) -> None:
        self._closing_input = True
        if not self._waiting:
            self._drop_input()

    def _drop_input(self) -> None:
        if self._input is not None:
            self._loop.remove_writer(self._input)
            os.close(self._input)
            self._input = None
            self._waiting.clear()

    def signal(self, number: int, *, last: bool = True) -> None:
        """To everything that it started.

        Args:
            last: False when another signal is to follow.
        """
        family.send_to_one(number, self.mark, self.leader)
        self._held = not last
        if self._over:
            self._reap()

    def close(self) -> None:
        """Let go of it: its pipes are closed, nothing more is called back."""
        self._over = True
        self._drop_input()
        for descriptor in self._outputs.values():
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._outputs.clear()
        self._held = False
        if self._pidfd is None:
            self._reap()
        else:  # it was killed a moment ago, and becomes a zombie soon
            self._loop.remove_reader(self._pidfd)
            self._loop.add_reader(self._pidfd, self._exited_after_close)

    def _exited_after_close(self) -> None:
        self._drop_pidfd()
        self._reap()


def signal_number(name: str) -> int | None:
    """Number of a signal by its name, with or without SIG; None when there is none."""
    name = name.upper()
    found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    return int(found) if isinstance(found, signal.Signals) else None
