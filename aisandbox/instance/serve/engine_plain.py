"""The plain start: a server as a child, such as vLLM's stock one, its output watched for the reason of a failure."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

from aisandbox.instance.http_probe import ask
from aisandbox.instance.serve.engine_watch import die_with_parent

SERVER = "vllm.entrypoints.openai.api_server"
LINES_KEPT = 400
STOP_SECONDS = 10
WATCH_SECONDS = 0.25


class Terminated(Exception):
    """SIGTERM came."""


def serve(module: str, argv: list[str], port: int, on_healthy: Callable[[], None]) -> list[str]:
    """Run the server, a Python module, to its end. Returns the last lines of its output; none after SIGTERM."""

    def terminated(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    process = subprocess.Popen(
        [sys.executable, "-m", module, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=die_with_parent,  # safe: this process has one thread so far
    )
    signal.signal(signal.SIGTERM, terminated)
    tail: deque[str] = deque(maxlen=LINES_KEPT)
    reader = threading.Thread(target=_pass_on, args=(process, tail), daemon=True)
    reader.start()
    try:
        while process.poll() is None and not ask(port, "/health", 2).ok:
            time.sleep(WATCH_SECONDS)
        if process.poll() is None:
            on_healthy()
        code = process.wait()
    except Terminated:
        _stop(process)
        return []
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    reader.join(1)
    return [*tail, f"vLLM ended with code {code}"]


def _pass_on(process: subprocess.Popen[str], tail: deque[str]) -> None:
    assert process.stdout
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        tail.append(line.rstrip("\n"))


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
