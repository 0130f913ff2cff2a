"""Processes of code: started in groups of their own, ended with all that they started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

from sandbox_api import family

WINDOWS = sys.platform == "win32"

OWN_GROUP: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)} if WINDOWS else {"start_new_session": True}
)
"""Arguments that give a process a group of its own."""


def interrupt(pid: int) -> None:
    """What Ctrl+C does in a terminal: the whole group gets SIGINT. Nothing on Windows, whose kernels have an event."""
    if not WINDOWS:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGINT)


def _kill_tree(pid: int | None, mark: str) -> None:
    if sys.platform == "linux":
        family.send(family.KILL, mark.__eq__, () if pid is None else (pid,))
    elif pid is not None:
        _kill_descendants(pid)


def _kill_descendants(pid: int) -> None:
    import psutil

    # Children that left the group are found while their parent lives.
    victims: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        victims = psutil.Process(pid).children(recursive=True)
    if not WINDOWS:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    else:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()
    for victim in victims:
        with contextlib.suppress(psutil.Error):
            victim.kill()


async def kill(pid: int | None, mark: str) -> None:
    """Kill everything that a process started, and itself. Whoever started it waits for its end.

    Args:
        pid: of the process, which leads a group; None if it has ended.
        mark: that it was started with.
    """
    await asyncio.to_thread(_kill_tree, pid, mark)


def cause(returncode: int | None) -> str:
    """Why a process ended, in words."""
    if returncode is None:
        return "it did not answer"
    if returncode >= 0:
        return f"it exited with code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"it was ended by {name}" + (" (perhaps out of memory)" if name == "SIGKILL" else "")
