"""What is known of a machine by its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


def test_groups_of_machines_that_have_ended_are_removed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    for pid in (ended.pid, os.getpid()):
        # systemd-nspawn makes it, and then moves itself there.
        (tmp_path / f"{nspawn.GROUP_PREFIX}ais-3-{pid}" / "payload").mkdir(parents=True)
    nspawn._remove_empty_groups(tmp_path)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(f"-{os.getpid()}") and (left / "payload").is_dir()


def test_a_machines_last_words_are_its_own(tmp_path: Path) -> None:
    machine: Any = SimpleNamespace(console=tmp_path / "console.log")
    machine.console.write_text(
        "systemd: starting\nFailed to mount /data: bad superblock\n"
        'Attempted to remove disk file system under "/run/systemd/nspawn/propagate/ais-2", and we can\'t allow that.\n'
    )
    assert up._tail(machine) == "systemd: starting\nFailed to mount /data: bad superblock"
    machine.console.write_text("")
    assert up._tail(machine) == "no output"
