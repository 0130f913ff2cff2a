"""Starts one program of the container, as systemd starts the same service on a machine.

    python -m aisandbox.instance.run.container.program NAME

Run by supervisord as root. It gives the program an environment of its own, and leaves it neither root's rights nor a
way back to them; then the program takes the place of this process. The standard library must do: this runs before
everything else, and often.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from aisandbox.instance import environment_file
from aisandbox.instance.run.container.catalogue import RESTARTS, Catalogue, Program, Runs, clock

NOT_NOW = 77
"""Exit status of a program that is not to run now; supervisord does not start it again."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OFTEN = 5
SHORT_S = 30.0
WAIT_S = 28.0
"""As backoff.sh: with the restart's own delay, a crash loop tries about every 30 s."""
KEPT = 20
"""How many restarts are remembered with their times."""


def main(name: str, catalogue: Catalogue) -> int:
    """Run the program; returns only when it is not to run, or has something to be done after it."""
    program = catalogue.programs[name]
    if program.unless and Path(program.unless).exists():
        print(f"It does not run while there is {program.unless}.", flush=True)
        return NOT_NOW
    restarts = _pace(program, catalogue.run_count(name))
    environment = {**_environment(program, os.environ), RESTARTS: str(restarts)}
    if program.credential:
        environment["CREDENTIALS_DIRECTORY"] = str(_hand_over(program, catalogue.runs / f"{name}.credentials"))
    _settle(program)
    if program.prepare:
        status = subprocess.call(_unprivileged(program, program.prepare), env=environment)
        if status:
            return status
    command = _unprivileged(program, program.command)
    if not program.success:
        os.execve(command[0], command, environment)
    # It is in our process group, so that what stops us stops it.
    status = subprocess.call(command, env=environment)
    if status == 0:
        status = subprocess.call(program.success, env={"PATH": PATH, "HOME": "/root"})
    return status if status >= 0 else 128 - status


def _pace(program: Program, path: Path) -> int:
    """Wait as long as is due before another start, and count it. Returns how often it was started by itself."""
    last = Runs.read(path)
    if last is None:
        Runs(began=clock()).write(path)
        return 0
    now = clock()
    restarts = last.restarts + 1
    times = (*last.times, now)[-KEPT:]
    Runs(times, restarts, last.began).write(path)
    if restarts > OFTEN and now - last.began < SHORT_S:
        print(f"Crashed again and again: the next try is in {WAIT_S:.0f} s.", flush=True)
        time.sleep(WAIT_S)
    time.sleep(program.restart_delay_s)
    Runs(times, restarts, clock()).write(path)
    return restarts


def _environment(program: Program, given: Mapping[str, str]) -> dict[str, str]:
    """The program's environment. Nothing of the container's own gets in but what it asks for."""
    inherited = {name: value for name, value in given.items() if name.startswith(tuple(program.inherit))}
    environment = {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        **inherited,
        "HOME": program.home,
        "USER": program.user,
        "LOGNAME": program.user,
        # What it says of itself is marked, as for the journal.
        "SUPERVISOR_ENABLED": "1",
        **(program.environment or {}),
    }
    for file in program.environment_files:
        path = Path(file.removeprefix("-"))
        if file.startswith("-") and not path.exists():
            continue
        environment |= dict(environment_file.parse(path.read_text(encoding="utf-8")))
    return environment


def _hand_over(program: Program, folder: Path) -> Path:
    """A folder with a copy of the credential that nobody but the program's user can read."""
    user = pwd.getpwnam(program.user)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    source = Path(program.credential or "")
    copy = folder / source.name
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        os.fchown(file.fileno(), user.pw_uid, user.pw_gid)
        file.write(source.read_bytes())
    os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def _settle(program: Program) -> None:
    """What a process hands down to the program that takes its place."""
    os.umask(int(program.umask, 8))
    if program.nice:
        os.nice(program.nice)
    if program.oom_score_adjust:
        Path("/proc/self/oom_score_adj").write_text(str(program.oom_score_adjust))
    os.chdir(program.home)


def _unprivileged(program: Program, command: list[str]) -> list[str]:
    """The command as the program's user, without capabilities and without a way to get any."""
    if program.user == "root":
        return command
    if program.real_user:
        user = ["--ruid", str(program.real_user), "--euid", program.user, "--regid", program.user, "--clear-groups"]
    else:
        user = ["--reuid", program.user, "--regid", program.user, "--init-groups"]
    walls = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return ["/usr/bin/setpriv", *user, *walls, "--", *command]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Catalogue.here()))
