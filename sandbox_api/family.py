"""All processes that a command, a terminal or code started, wherever they went.

They inherit a variable, the mark. It also finds those that left the process group and the session (setsid, double fork)
and those whose parents have ended. A process is out of reach only if it has erased its environment, left the session
and lost its parent.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass

VARIABLE = "__sandbox_mark"
MOST_ROUNDS = 50
"""Searches for processes that were started while the others were being killed."""
KILL = int(signal.SIGKILL)

_ENTRY = b"\0" + VARIABLE.encode() + b"="
# Several servers of one user must not end each other's processes.
_SERVER = secrets.token_hex(4)


def new_mark() -> str:
    return _SERVER + secrets.token_hex(8)


def of_this_server(mark: str) -> bool:
    return mark.startswith(_SERVER)


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    session: int
    mark: str


def _mark_of(environment: bytes) -> str:
    found = (b"\0" + environment).partition(_ENTRY)[2]
    return found.partition(b"\0")[0].decode(errors="replace")


def _read(file: str) -> bytes:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 2**16), b""))
    finally:
        os.close(descriptor)


def _processes() -> list[_Process]:
    """Processes that have not ended; none where there is no /proc."""
    found = []
    # Hundreds of small files, in the event loop: without pathlib it takes a third of the time.
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc"):  # noqa: PTH208
            if not name.isdigit():
                continue
            try:
                state, parent, _, session = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()[:4]
            except (OSError, ValueError):  # it has gone meanwhile
                continue
            if state in (b"Z", b"X"):
                continue
            try:
                mark = _mark_of(_read(f"/proc/{name}/environ"))
            except OSError:  # another user's
                mark = ""
            found.append(_Process(int(name), int(parent), int(session), mark))
    return found


class Snapshot:
    """The processes of this moment."""

    def __init__(self) -> None:
        self._processes = _processes()

    @property
    def marks(self) -> set[str]:
        return {process.mark for process in self._processes}

    def members(self, chosen: Callable[[str], bool], leaders: Collection[int] = ()) -> set[int]:
        """Processes with a chosen mark or in the session of a leader, and their descendants.

        Args:
            leaders: of sessions; not reaped yet, so that their numbers are still their own.
        """
        children: dict[int, list[int]] = {}
        waiting = []
        for process in self._processes:
            children.setdefault(process.parent, []).append(process.pid)
            if (process.mark and chosen(process.mark)) or process.session in leaders:
                waiting.append(process.pid)
        members: set[int] = set()
        while waiting:
            pid = waiting.pop()
            if pid not in members:
                members.add(pid)
                waiting += children.get(pid, ())
        return members


def _send_to(pids: Collection[int], number: int, without: Collection[int] = ()) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not without or os.getpgid(pid) not in without:
                os.kill(pid, number)


def send(number: int, chosen: Callable[[str], bool], leaders: Collection[int] = ()) -> None:
    """Signal all members of `Snapshot.members`; SIGKILL also reaches what they start meanwhile.

    Without /proc only the leaders' groups get it.
    """
    members = Snapshot().members(chosen, leaders)
    for leader in leaders:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, number)
    _send_to(members, number, without=leaders)
    for _ in range(MOST_ROUNDS if number == KILL else 0):
        new = Snapshot().members(chosen, leaders) - members
        if not new:
            return
        _send_to(new, number)
        members |= new


def send_to_one(number: int, mark: str, leader: int | None) -> None:
    """Signal everything that was started with a mark, as `send`.

    Args:
        leader: of its session; None once that is reaped.
    """
    send(number, mark.__eq__, () if leader is None else (leader,))
