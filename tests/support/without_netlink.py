"""Run a command that cannot hear of changes of the host's network.

Chromium gives up the requests that it has under way when an address appears or goes (ERR_NETWORK_CHANGED), as happens
whenever a machine or container of another suite starts or ends beside it; a page that loads then stays broken.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

import pyseccomp


def without_netlink(command: list[str]) -> list[str]:
    """The command that runs this one without netlink sockets."""
    return [sys.executable, __file__, *command]


if __name__ == "__main__":
    calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    calls.add_rule(
        pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket", pyseccomp.Arg(0, pyseccomp.EQ, socket.AF_NETLINK)
    )  # fmt: skip
    calls.load()
    os.execvp(sys.argv[1], sys.argv[1:])
