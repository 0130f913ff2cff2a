"""The container's first process: gives up its rights, then starts the supervisor, whose programs are the sandbox.

    python -I supervise.py CONFIGURATION WORKSPACE STATE

Started as root, it becomes the two users of `privileges.py`: its own, and as the effective one the owner of the
workspace, who all other programs are. Started as any other user, it stays that one. Run by the supervisor's own Python,
so of this package it imports nothing.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

SERVER = "sandbox-server"
FIRST_USER = 1000
"""Who the sandbox is when the workspace belongs to root."""
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
CAPABILITIES = 64
"""More than there are."""
SHELL = "/bin/bash"
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2)
LIBC = ctypes.CDLL(None)


def _fail(message: str, fix: str) -> NoReturn:
    print(f"sandbox: {message}\n  fix: {fix}", file=sys.stderr, flush=True)
    sys.exit(1)


def _owner(workspace: Path) -> tuple[int, int]:
    found = workspace.stat()
    return (found.st_uid, found.st_gid) if found.st_uid else (FIRST_USER, FIRST_USER)


def _name(user: int, group: int, folder: Path) -> None:
    """Give a user or group without a name one, where libnss-extrausers looks: whoami and ssh fail without."""
    try:
        pwd.getpwuid(user)
    except KeyError:
        _write(folder / "passwd", f"user:x:{user}:{group}::{os.environ['HOME']}:{SHELL}\n")
    try:
        grp.getgrgid(group)
    except KeyError:
        _write(folder / "group", f"user:x:{group}:\n")


def _write(path: Path, text: str) -> None:
    # What somebody has put there, a link perhaps, is not written through.
    path.unlink(missing_ok=True)
    with path.open("x") as file:
        file.write(text)


def _give_up_rights(user: int, group: int) -> None:
    """Become the two users; the capabilities of root go with it, as no user is root any more."""
    server = pwd.getpwnam(SERVER).pw_uid
    for capability in range(CAPABILITIES):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(server, user, server)
    except PermissionError:
        _fail("root may not become another user here", f"--cap-add SETUID --cap-add SETGID, or --user {user}:{group}")


def _wait_for(supervisor: int) -> NoReturn:
    """Pass signals on to it and collect what others leave behind, as a first process has to; end as it ends."""
    for number in PASSED_ON:
        signal.signal(number, lambda received, _frame: os.kill(supervisor, received))
    while True:
        ended, status = os.wait()
        if ended == supervisor:
            code = os.waitstatus_to_exitcode(status)
            sys.exit(code if code >= 0 else 128 - code)


def main(configuration: str, workspace: str, state: str) -> None:
    root = os.getuid() == 0
    user, group = _owner(Path(workspace)) if root else (os.getuid(), os.getgid())
    os.umask(0o022)
    _name(user, group, Path(state))
    if root:
        # Programs open them anew, by /dev/fd.
        for output in (1, 2):
            with suppress(OSError):
                os.fchmod(output, 0o666)
        _give_up_rights(user, group)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Keys are in its environment.
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if supervisor := os.fork():
        _wait_for(supervisor)
    from supervisor import supervisord

    supervisord.main(["-c", configuration])


if __name__ == "__main__":
    main(*sys.argv[1:])
