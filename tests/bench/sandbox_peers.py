"""Other sandbox servers as real processes on this host, for benchmarks side by side."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from aisandbox.builder.environments import environment
from tests.support.sandbox import free_port, program

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Server:
    """A server, and how it is told to run a command and what must then be in its answer."""

    name: str
    port: int
    pid: int
    exec_path: str
    exec_body: bytes
    expected: Callable[[dict[str, Any]], bool]
    headers: dict[str, str] = field(default_factory=dict)

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=60)

    def execute(self, connection: HTTPConnection) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", **self.headers}
        connection.request("POST", self.exec_path, self.exec_body, headers)
        response = connection.getresponse()
        body: dict[str, Any] = json.loads(response.read())
        if response.status != 200 or not self.expected(body):
            raise RuntimeError(f"{self.name} answered {response.status}: {body}")
        return body


def wait_for_port(port: int) -> None:
    """Until something answers HTTP there."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        finally:
            connection.close()


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SANDBOX_", "PYTHON"))}


@contextmanager
def swe_rex(folder: Path, shell: str, command: str) -> Iterator[Server]:
    """swe-rex: POST /execute, the same shell started directly."""
    port, token = free_port(), secrets.token_hex(8)
    binary = environment("peers") / "bin" / "swerex-remote"
    arguments = [str(binary), "--host", "127.0.0.1", "--port", str(port), "--auth-token", token]
    body = json.dumps({"command": [shell, "-c", command], "shell": False}).encode()
    with program(arguments, _variables(), folder / "swe-rex.log") as process:
        wait_for_port(port)
        yield Server(
            "swe-rex", port, process.pid, "/execute", body, lambda answer: answer["exit_code"] == 0,
            {"X-API-Key": token},
        )  # fmt: skip


@contextmanager
def open_terminal(folder: Path, shell: str, command: str) -> Iterator[Server]:
    """open-terminal: POST /execute?wait=10; it takes its own shell."""
    port, key = free_port(), secrets.token_hex(8)
    binary = environment("peers") / "bin" / "open-terminal"
    arguments = [str(binary), "run", "--host", "127.0.0.1", "--port", str(port), "--api-key", key, "--cwd", str(folder)]
    variables = {**_variables(), "HOME": str(folder), "SHELL": shell}
    body = json.dumps({"command": command}).encode()
    with program(arguments, variables, folder / "open-terminal.log") as process:
        wait_for_port(port)
        yield Server(
            "open-terminal", port, process.pid, "/execute?wait=10", body, lambda answer: answer["status"] == "done",
            {"Authorization": f"Bearer {key}"},
        )  # fmt: skip


PEERS = (swe_rex, open_terminal)
