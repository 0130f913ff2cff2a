"""Two users where the place allows it: the server's own, and that of all that it starts.

systemd, or the container's entry point, starts the server with the sandbox's user as the effective one and its own as
the real one. Files, signals and /proc then work as for the sandbox's user. What it starts becomes that user altogether,
and so can neither signal the server nor look into it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

BECOME = Path(__file__).with_name("become")
"""Becomes the effective user altogether, then a program (`become.c`)."""
PR_SET_DUMPABLE = 4
_EFFECTIVE = os.access in os.supports_effective_ids


def separate() -> bool:
    """Whether the server has a user of its own."""
    return os.getuid() != os.geteuid()


def keep() -> None:
    """Take the server's user as the saved one, too: exec has made that the sandbox's, who could send signals then."""
    if separate():
        real, effective, _ = os.getresuid()
        os.setresuid(real, effective, real)


def hide() -> None:
    """Keep processes of the same user from reading this one's memory and environment, where keys are."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def read_secret(path: str) -> str:
    """A file that may be the server's alone.

    Raises:
        OSError: neither user can read it.
    """
    if not separate():
        return Path(path).read_text()
    libc = ctypes.CDLL(None)
    libc.setfsuid(os.getuid())
    try:
        return Path(path).read_text()
    except PermissionError:
        libc.setfsuid(os.geteuid())
        return Path(path).read_text()
    finally:
        libc.setfsuid(os.geteuid())


def drop() -> None:
    """Become the sandbox's user altogether, without a way back."""
    if separate():
        os.setresuid(*[os.geteuid()] * 3)


def may(path: str | Path, mode: int, folder: int | None = None) -> bool:
    """As `os.access`, with the rights of the sandbox's user.

    Args:
        folder: descriptor that a relative path starts at.
    """
    return os.access(path, mode, dir_fd=folder, effective_ids=_EFFECTIVE)


def dropped(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """A command as what the server starts in its place, so that it runs as the sandbox's user.

    Args:
        environment: in whose PATH the program is looked for; ours by default.

    Raises:
        OSError: there is no such program, as exec would say itself.
    """
    if not separate():
        return list(arguments)
    return [str(BECOME), _found(arguments[0], environment), *arguments]


def dropped_program(program: Path, arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """A program by its path and its arguments, which begin with the name that it sees itself by, in the same way."""
    if not separate():
        return program, list(arguments)
    return BECOME, [str(BECOME), str(program), *arguments]


def _found(name: str, environment: Mapping[str, str] | None) -> str:
    # Not shutil.which: it asks with the rights of the real user.
    for folder in [""] if os.sep in name else os.get_exec_path(environment):
        path = os.path.join(folder, name)  # noqa: PTH118 - as exec joins them
        if os.path.isfile(path) and may(path, os.X_OK):  # noqa: PTH113
            return path
    there = os.sep in name and os.path.exists(name)  # noqa: PTH110
    number = errno.EACCES if there else errno.ENOENT
    raise OSError(number, os.strerror(number), name)
