"""The launchers of the programs beside the sandbox."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

from sandbox_api import launch


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


def test_a_dead_socket_is_removed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    began = time.monotonic()
    launch._fresh(path, "SOCKET")
    assert not os.path.lexists(path) and time.monotonic() - began < 1
