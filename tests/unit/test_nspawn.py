"""What is known of a machine by its process."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aisandbox.builder import nspawn, up


def test_a_machine_runs_from_the_moment_it_is_started_until_it_ends(tmp_path: Path) -> None:
    command = ["env", sys.executable, "-c", "input()", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        # Two programs are executed one after the other meanwhile.
        assert all(nspawn.runs(tmp_path, process.pid) for _ in range(2000))
        assert not nspawn.runs(tmp_path / "other", process.pid)
        process.kill()
        while Path(f"/proc/{process.pid}/status").read_text().find("State:\tZ") < 0:
            pass
        assert not nspawn.runs(tmp_path, process.pid)
    assert not nspawn.runs(tmp_path, process.pid)


def test_a_group_that_another_machine_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, entered, write = tmp_path / "group", tmp_path / "group" / "cgroup.procs", Path.write_text
    errors = [errno.ENOENT, errno.ENODEV]

    def removed_first(path: Path, text: str) -> int:
        if errors:
            group.rmdir()
            raise OSError(errors.pop(0), "removed")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", removed_first)
    nspawn._enter(group)
    assert entered.read_text() == "0"
    errors.append(errno.EROFS)
    entered.unlink()
    with pytest.raises(OSError, match="removed"):
        nspawn._enter(group)


def test_a_machines_last_words_are_its_own(tmp_path: Path) -> None:
    machine: Any = SimpleNamespace(console=tmp_path / "console.log")
    machine.console.write_text(
        "systemd: starting\nFailed to mount /data: bad superblock\n"
        'Attempted to remove disk file system under "/run/systemd/nspawn/propagate/ais-2", and we can\'t allow that.\n'
    )
    assert up._tail(machine) == "systemd: starting\nFailed to mount /data: bad superblock"
    machine.console.write_text("")
    assert up._tail(machine) == "no output"
