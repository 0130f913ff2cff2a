"""What the fast and the plain start share: health, and children that never outlive us."""

from __future__ import annotations

import ctypes
import signal
from http.client import HTTPConnection, HTTPException

PR_SET_PDEATHSIG = 1


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
