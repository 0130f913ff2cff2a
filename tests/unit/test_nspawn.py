"""What is known of a machine by its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from aisandbox.build import nspawn


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
