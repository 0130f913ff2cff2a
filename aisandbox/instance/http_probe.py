"""One HTTP request to a server that may not answer.

Standard library only, as an upgrade runs it with the system's Python.
"""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """What a server answered, or why it did not."""

    status: int = 0
    """0: there was no answer."""
    content: bytes = b""
    """As much of it as was asked for."""
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.status == http.client.OK

    @property
    def serves(self) -> bool:
        """Whether the server works: one that asks for a key does."""
        return 0 < self.status < http.client.INTERNAL_SERVER_ERROR


def ask(
    port: int, path: str, timeout_s: float, *, host: str = LOOPBACK, body: str | None = None, most: int = 0
) -> Answer:
    """Send a GET request, or with a JSON `body` a POST request.

    Args:
        most: bytes of the content to read; a health check needs none.
    """
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    method, headers = ("POST", {"Content-Type": "application/json"}) if body else ("GET", {})
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(most) if most else b"")
    except (OSError, http.client.HTTPException) as error:
        return Answer(error=str(error) or type(error).__name__)
    finally:
        connection.close()


def listening(port: int, timeout_s: float) -> bool:
    """Whether something accepts connections on loopback."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout_s):
            return True
    except OSError:
        return False
