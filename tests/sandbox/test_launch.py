"""The launchers of the programs beside the sandbox."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml

from aisandbox.manifest import REPOSITORY
from sandbox_api import launch
from sandbox_api.environment import child_environment
from sandbox_api.settings import Settings


def test_a_socket_that_an_earlier_run_still_holds_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    earlier = socket.socket(socket.AF_UNIX)
    earlier.bind(str(path))
    earlier.listen()
    ended: list[float] = []

    def end() -> None:
        path.unlink()
        ended.append(time.monotonic())
        earlier.close()

    threading.Timer(0.3, end).start()
    assert launch._fresh(path, "SOCKET") == path
    assert ended and not path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="gives a folder to somebody else")
def test_git_works_in_a_repository_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the catalogue sets, and for commands, which get it from the server's environment."""
    subprocess.run(["git", "init", "--quiet", tmp_path / "repository"], check=True)
    subprocess.run(["chown", "-R", "4321:4321", tmp_path / "repository"], check=True)
    catalogue = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())
    status = ["git", "-C", str(tmp_path / "repository"), "status", "--short"]
    monkeypatch.setenv("HOME", str(tmp_path))
    refused = subprocess.run(status, capture_output=True, text=True, check=False)
    assert "dubious ownership" in refused.stderr
    for name, value in catalogue["sandbox_environment"].items():
        if name.startswith("GIT_"):
            monkeypatch.setenv(name, value)
    variables = child_environment(Settings(root=tmp_path))
    assert subprocess.run(status, env=variables, capture_output=True, check=True).stdout == b""


def test_a_dead_socket_is_removed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    began = time.monotonic()
    launch._fresh(path, "SOCKET")
    assert not os.path.lexists(path) and time.monotonic() - began < 1
