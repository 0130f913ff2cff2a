"""Processes of code: started in groups of their own, ended with all that they started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

from sandbox_api import family

OWN_GROUP: dict[str, Any] = {"start_new_session": True}
"""Arguments that give a process a session and group of its own."""


def interrupt(pid: int) -> None:
    """What Ctrl+C does in a terminal: the whole group gets SIGINT."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGINT)


async def kill(pid: int | None, mark: str) -> None:
    """Kill everything that a process started, and itself. Whoever started it waits for its end.

    Args:
        pid: of the process, which leads a group; None if it has ended.
        mark: that it was started with.
    """
    await asyncio.to_thread(family.send_to_one, family.KILL, mark, pid)


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
