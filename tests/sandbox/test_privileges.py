"""Two users: the server's own, and that of what it starts. The real ones: tests/boot, tests/container."""

from __future__ import annotations

import inspect
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox_api
from aisandbox.manifest import REPOSITORY
from sandbox_api import privileges

SERVER, SANDBOX = 54321, 12345
PLACE = Path(f"/tmp/privileges-{os.getpid()}")  # noqa: S108 - below pytest's own folder nobody else gets
SPAWNS = re.compile(r"Popen\(|subprocess\.run\(|create_subprocess_exec\(|subprocess_exec\(|os\.exec|posix_spawn")
SPAWNS_NOTHING_THERE = {"family.py", "launch.py"}
"""Files that start programs on Windows only, or in another process than the server's."""

as_root = pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root can become two users")


@pytest.fixture(scope="module", autouse=True)
def become() -> Iterator[None]:
    """The helper, compiled as the role `sandbox` does, where every user may run it."""
    PLACE.mkdir(mode=0o755)
    source, program = REPOSITORY / "sandbox_api" / "become.c", PLACE / "become"
    alone = ["-nostdlib"] if platform.machine() == "x86_64" else []
    subprocess.run(["gcc", "-Os", "-static", *alone, "-s", "-o", program, source], check=True)
    yield
    shutil.rmtree(PLACE)


def served(program: str) -> list[str]:
    """What a process of the two users prints, after `keep`."""
    here = f"__file__ = {str(PLACE / 'privileges.py')!r}"
    # What comes from the future comes first.
    source = inspect.getsource(privileges).replace("import ctypes\n", f"import ctypes\n{here}\n", 1)
    source += f"\nkeep()\nimport subprocess\n{program}"
    start = ["setpriv", "--ruid", str(SERVER), "--euid", str(SANDBOX), "--regid", str(SANDBOX), "--clear-groups", "--"]
    found = subprocess.run(
        [*start, "/usr/bin/python3", "-I", "-"], input=source, capture_output=True, text=True, cwd="/", check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


@as_root
def test_it_acts_as_the_sandbox() -> None:
    found = served("print(*os.getresuid(), separate(), may('/etc', os.R_OK), may('/etc', os.W_OK))")
    assert found == [str(SERVER), str(SANDBOX), str(SERVER), "True", "True", "False"]


@as_root
@pytest.mark.parametrize(
    "start",
    [
        "subprocess.run(dropped(['sh', '-c', SCRIPT]))",
        "program, words = dropped_program(Path('/bin/bash'), ['bash', '-c', SCRIPT])\n"
        "subprocess.run(words, executable=program)",
    ],
)
def test_what_it_starts_cannot_reach_it(start: str) -> None:
    script = (
        "grep ^Uid: /proc/self/status | cut -f2-; kill -KILL $PPID 2>/dev/null || echo alive;"
        "cat /proc/$PPID/environ 2>/dev/null || echo hidden"
    )
    assert served(f"SCRIPT = {script!r}\n{start}") == [*[str(SANDBOX)] * 4, "alive", "hidden"]


@as_root
def test_what_it_starts_can_be_signalled_and_seen() -> None:
    found = served(
        "process = subprocess.Popen(dropped(['sh', '-c', 'echo started; read x']), stdin=-1, stdout=-1)\n"
        "process.stdout.readline()\n"
        "mark = b'PATH=' in Path(f'/proc/{process.pid}/environ').read_bytes()\n"
        "process.terminate()\n"
        "print(mark, process.wait())"
    )
    assert found == ["True", "-15"]


@as_root
def test_a_shell_keeps_its_name() -> None:
    found = served(
        "program, words = dropped_program(Path('/bin/bash'), ['bash', '-c', 'echo $0; nothing'])\n"
        "done = subprocess.run(words, executable=program, capture_output=True, text=True)\n"
        "print(done.stdout, done.stderr, done.returncode)"
    )
    assert found == ["bash", "bash:", "line", "1:", "nothing:", "command", "not", "found", "127"]


@as_root
def test_a_program_that_is_missing_is_told_as_by_exec() -> None:
    for name, error in (
        ("nothing", "FileNotFoundError"),
        ("/nothing", "FileNotFoundError"),
        ("/etc", "PermissionError"),
    ):
        told = served(f"try: dropped([{name!r}])\nexcept OSError as error: print(type(error).__name__, error.filename)")
        assert told == [error, name]


@as_root
def test_a_secret_may_be_the_servers_alone() -> None:
    for owner, seen in ((SERVER, "secret"), (SANDBOX, "secret"), (1, "PermissionError")):
        # In a folder that both may enter.
        path = Path(f"/tmp/secret-{os.getpid()}-{owner}")  # noqa: S108
        path.write_text("secret")
        path.chmod(0o400)
        os.chown(path, owner, owner)
        try:
            told = served(
                f"try: print(read_secret({str(path)!r}))\nexcept OSError as error: print(type(error).__name__)\n"
                "mine = Path('/tmp') / f'mine-{os.getpid()}'\nmine.touch()\nprint(mine.stat().st_uid)\nmine.unlink()"
            )
        finally:
            path.unlink()
        assert told == [seen, str(SANDBOX)]


@as_root
def test_there_is_no_way_back() -> None:
    told = served(f"drop()\nprint(*os.getresuid())\ntry: os.setuid({SERVER})\nexcept PermissionError: print('refused')")
    assert told == [*[str(SANDBOX)] * 3, "refused"]


def test_alone_nothing_changes() -> None:
    if os.getuid() != os.geteuid():
        pytest.skip("this process is two users")
    assert privileges.dropped(["ls", "-l"]) == ["ls", "-l"]
    assert privileges.dropped_program(Path("/bin/sh"), ["sh", "-c", ":"]) == (Path("/bin/sh"), ["sh", "-c", ":"])


def test_whatever_starts_programs_drops_the_servers_user() -> None:
    folder = Path(sandbox_api.__file__).parent
    starts = {path for path in folder.rglob("*.py") if SPAWNS.search(path.read_text())}
    careless = [
        path.name
        for path in starts
        if path.name not in SPAWNS_NOTHING_THERE | {"supervise.py"}
        and len(SPAWNS.findall(path.read_text())) > path.read_text().count("privileges.dropped")
    ]
    assert starts and careless == []
