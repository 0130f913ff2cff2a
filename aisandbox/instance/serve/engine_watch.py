"""What the fast and the plain start share: health, causes of failures, children that never outlive us."""

from __future__ import annotations

import ctypes
import re
import signal
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException

PR_SET_PDEATHSIG = 1

_ERROR = re.compile(r"(?:^|[\s\]])(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception)): (.+)$")
_DETAIL = re.compile(r"^(?:\s+Value error, |\S+: error: )(.+?)(?: \[type=.*)?$")  # of pydantic, of argparse
_CONSEQUENCE = re.compile(r"See (?:root cause above|stack trace for root cause)|EngineDeadError")


def is_healthy(port: int) -> bool:
    """Whether the API server answers its health check."""
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def last_error(lines: Iterable[str]) -> str:
    """The last line that names a cause; empty when none does."""
    found = ""
    for line in lines:
        if _CONSEQUENCE.search(line):
            continue
        if match := _DETAIL.match(line):
            found = match[1]
        elif match := _ERROR.search(line.rstrip()):
            found = f"{match[1]}: {match[2]}"
    return found


def describe(error: BaseException) -> str:
    """One line: the cause named in the exception, else its first line."""
    lines = f"{type(error).__name__}: {error}".strip().splitlines()
    return last_error(lines) or lines[0].removesuffix(":")
