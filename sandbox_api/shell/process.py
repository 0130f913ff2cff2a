"""Processes of commands: started, fed, read and signalled without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sandbox_api import family, privileges

CHUNK = 64 * 1024
DRAIN_S = 0.1
"""How long output is awaited after the shell has ended while one of its children keeps the pipe open."""
LARGEST_INPUT = 2**20
"""Bytes of input that wait for a program that does not read."""

NEW_GROUP = 0x200
"""CREATE_NEW_PROCESS_GROUP of Windows."""

STDOUT, STDERR = 0, 1
Output = Callable[[int, bytes], None]
Ended = Callable[[int], None]


class Process(Protocol):
    """A running command.

    Its callbacks come on the event loop: `output(stream, data)`, also after the end while background children write;
    `ended(code)` once, negative for a signal.
    """

    pid: int
    mark: str

    @property
    def leader(self) -> int | None:
        """Its number while that leads a session, living or not; None once it is reaped."""

    @property
    def lingering(self) -> bool:
        """Whether it or its children may still write."""

    def write(self, data: bytes) -> bool:
        """Feed its input; False when too much waits already, or the input is closed."""

    def close_input(self) -> None: ...

    def signal(self, number: int, *, last: bool = True) -> None:
        """To everything that it started.

        Args:
            last: False when another signal is to follow.
        """

    def close(self) -> None:
        """Let go of it: its pipes are closed, nothing more is called back."""


def start(
    program: Path,
    arguments: Sequence[str],
    directory: Path,
    variables: Mapping[bytes, bytes],
    *,
    interactive: bool,
    output: Output,
    ended: Ended,
) -> Process:
    """Start a program as leader of its own session and group.

    Args:
        arguments: begin with the name that it sees itself by.
        interactive: give it an input to write to; else it reads an empty one.

    Raises:
        OSError: it cannot be started.
    """
    if not LOOP_PROCESSES:
        return ThreadProcess(
            program, arguments, directory, variables, interactive=interactive, output=output, ended=ended
        )
    return LoopProcess(Spawned(program, arguments, directory, variables, interactive=interactive), output, ended)


def _pidfd_works() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # not Linux, or forbidden in this container
        return False
    return True


LOOP_PROCESSES = _pidfd_works()


def _marked(variables: Mapping[bytes, bytes], mark: str) -> dict[bytes, bytes]:
    return {**variables, family.VARIABLE.encode(): mark.encode()}


def _leader(popen: subprocess.Popen[bytes]) -> int | None:
    return popen.pid if popen.returncode is None else None


def signal_family(mark: str, leader: int | None, number: int) -> None:
    family.send(number, mark.__eq__, () if leader is None else (leader,))


class Spawned:
    """A process of Linux and our ends of its pipes; nobody listens to them yet.

    Args:
        inherited: descriptors that it gets, too.
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
                env=_marked(variables, self.mark),
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
            self.pidfd = os.pidfd_open(self.popen.pid)
        except OSError:
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


class LoopProcess:
    """On Linux: pipes and a pidfd in the event loop. No thread, no polling, and the spawn itself is a vfork."""

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
        return _leader(self._popen)

    @property
    def lingering(self) -> bool:
        return bool(self._outputs)

    def write(self, data: bytes) -> bool:
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
        signal_family(self.mark, self.leader, number)
        self._held = not last
        if self._over:
            self._reap()

    def close(self) -> None:
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


class ThreadProcess:
    """Everywhere else: threads that read and wait."""

    def __init__(
        self,
        program: Path,
        arguments: Sequence[str],
        directory: Path,
        variables: Mapping[bytes, bytes],
        *,
        interactive: bool,
        output: Output,
        ended: Ended,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._output, self._ended = output, ended
        self._closed = False
        windows = sys.platform == "win32"
        self.mark = family.new_mark()
        executable, words = privileges.dropped_program(program, arguments)
        self._popen: subprocess.Popen[bytes] = subprocess.Popen(
            words,
            executable=executable,
            cwd=directory,
            env=_marked(variables, self.mark),
            stdin=subprocess.PIPE if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=not windows,
            creationflags=NEW_GROUP if windows else 0,
        )
        self.pid = self._popen.pid
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True) for stream in (STDOUT, STDERR)
        ]
        for thread in (*self._readers, threading.Thread(target=self._wait, daemon=True)):
            thread.start()

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended
            self._closed = True

    def _read(self, stream: int) -> None:
        pipe = self._popen.stdout if stream == STDOUT else self._popen.stderr
        assert pipe is not None
        taken = threading.Semaphore(4)  # so that a flood waits for the loop, and not in memory

        def hand_over(data: bytes) -> None:
            taken.release()
            if not self._closed:
                self._output(stream, data)

        with pipe:
            while not self._closed and (data := pipe.read(CHUNK)):
                while not taken.acquire(timeout=1):
                    if self._closed:
                        return
                self._call(hand_over, data)

    def _wait(self) -> None:
        code = self._popen.wait()
        for thread in self._readers:
            thread.join(DRAIN_S)
        self._call(lambda: None if self._closed else self._ended(code))

    @property
    def lingering(self) -> bool:
        return any(thread.is_alive() for thread in self._readers)

    def write(self, data: bytes) -> bool:
        pipe = self._popen.stdin
        if pipe is None or pipe.closed or len(data) > LARGEST_INPUT:
            return False
        threading.Thread(target=self._feed, args=(data,), daemon=True).start()
        return True

    def _feed(self, data: bytes) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(data)
        except (OSError, ValueError):
            return

    def close_input(self) -> None:
        if self._popen.stdin:
            self._popen.stdin.close()

    @property
    def leader(self) -> int | None:
        return _leader(self._popen)

    def signal(self, number: int, *, last: bool = True) -> None:
        signal_family(self.mark, self.leader, number)

    def close(self) -> None:
        self._closed = True
        self.close_input()


def signal_number(name: str) -> int | None:
    """Number of a signal by its name, with or without SIG; None when there is none."""
    name = name.upper()
    found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    return int(found) if isinstance(found, signal.Signals) else None
