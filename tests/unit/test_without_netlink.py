"""Browsers of tests hear nothing of the interfaces that other tests add and remove."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.support.without_netlink import without_netlink


@pytest.mark.parametrize(("family", "works"), [("AF_NETLINK", False), ("AF_INET", True), ("AF_UNIX", True)])
def test_only_netlink_is_missing(family: str, works: bool) -> None:
    kind = socket.SOCK_RAW if family == "AF_NETLINK" else socket.SOCK_STREAM
    opening = f"import socket; socket.socket(socket.{family}, {int(kind)})"
    # In a child of the command too: a browser is many processes.
    inner = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {opening!r}]).returncode)"
    done = subprocess.run(without_netlink([sys.executable, "-c", inner]), capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is works, done.stderr
    assert ("Address family not supported" in done.stderr) is not works
