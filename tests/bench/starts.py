"""Model servers as a benchmark starts them: each in a session and a folder of its own, up to the first token.

Runs in the checkout's environment and in vLLM's. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from aisandbox.instance import files
from aisandbox.instance.deployment import LOCATED
from aisandbox.instance.serve.engine_watch import die_with_parent
from tests.support import deployments

REPOSITORY = Path(__file__).resolve().parents[2]
SERVED_NAME = "bench"
GIVE_UP_SECONDS = 600.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.02
TAIL_LINES = 100
"""The cause of a failure stands far above its last consequence."""
ENGINE = ("-m", "aisandbox.instance.serve.engine")


@dataclass(frozen=True)
class Run:
    """One start: seconds to the first token, its processor seconds, share of time under pressure."""

    seconds: float
    cpu_seconds: float
    busy: float


class Machine:
    """What a case starts servers with: Python of the environment, model, a folder of its own, a free port.

    Args:
        baked: what `python -m aisandbox.instance.serve.engine bake` has filled.
        caches: folder of what vLLM compiles; of its own without one, so that they are cold.
        deadline: when waiting ends with a `TimeoutError`.
    """

    def __init__(
        self, python: Path, model: Path, baked: Path, folder: Path, caches: Path | None = None, deadline: float = 0.0
    ) -> None:
        self.python, self.model, self.baked, self.folder = python, model, baked, folder
        self.caches = caches or folder
        self.port = free_port()
        self.run = folder / "run"
        self.run.mkdir()
        self.deadline = deadline or time.monotonic() + GIVE_UP_SECONDS
        self.lines: list[tuple[float, str]] = []
        """What the servers have written, each line with the time of its arrival."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @contextmanager
    def process(self, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """A server in a session of its own, of which nothing is left at the end."""
        own = {
            "PYTHONPATH": str(REPOSITORY),
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(self.caches / "vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.caches / "inductor"),
            "TRITON_CACHE_DIR": str(self.caches / "triton"),
            "AISANDBOX_RUN": str(self.run),
            "AISANDBOX_API_PORT": str(self.port),
            "AISANDBOX_BAKED_CACHE": str(self.baked),
        }
        process = subprocess.Popen(
            [self.python, *arguments],
            env=os.environ | own | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        try:
            yield process
        finally:
            end(process)
            reader.join(1)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with (self.folder / "log").open("a") as log:
            for line in process.stdout:
                self.lines.append((time.monotonic(), line.rstrip("\n")))
                log.write(line)
                log.flush()

    def write_config(self, *arguments: str) -> None:
        """Tell our engine what to serve."""
        served = deployments.serving(str(self.model), *arguments, names=(SERVED_NAME,))
        deployments.located(served).save(self.run / LOCATED)

    def wait_for_phase(self, phase: str, process: subprocess.Popen[str]) -> None:
        while self._status().get("phase") != phase:
            self.check(process)
            time.sleep(LOOK_SECONDS)

    def _status(self) -> dict[str, Any]:
        """What our engine has last reported; nothing of another server."""
        return files.read_json(self.run / "status" / "engine.json") or {}

    def wait_for_token(self, process: subprocess.Popen[str]) -> None:
        http = openai.DefaultHttpxClient(trust_env=False)  # no proxy stands between us and our own server
        with openai.OpenAI(base_url=self.url, api_key="none", timeout=60, max_retries=0, http_client=http) as client:
            while not _streams_token(client):
                self.check(process)
                time.sleep(LOOK_SECONDS)

    def check(self, process: subprocess.Popen[str]) -> None:
        """Raises `RuntimeError` when the server has ended or our engine cannot serve, `TimeoutError` in the end."""
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{self.log_tail()}")
        if (status := self._status()).get("state") == "failed":
            raise RuntimeError(status["message"])
        if time.monotonic() > self.deadline:
            raise TimeoutError(f"no token in time:\n{self.log_tail()}")

    def log_tail(self) -> str:
        return "\n".join(line for _, line in self.lines[-TAIL_LINES:])


def _streams_token(client: openai.OpenAI) -> bool:
    try:
        stream = client.chat.completions.create(
            model=SERVED_NAME, messages=[{"role": "user", "content": "Who are you?"}], max_tokens=1, stream=True
        )
        return any(event.choices for event in stream)
    except openai.OpenAIError:
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def end(process: subprocess.Popen[str]) -> None:
    """End the leader of a session, by force if it does not listen, and with it all that it has started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    while members := [pid for pid, state, _ in _session(process.pid) if state != "Z"]:
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.wait()


class Meter:
    """Measures from its making: wall clock, processor time of a process tree, pressure on the processors."""

    def __init__(self, session: int | None = None) -> None:
        self.started = time.monotonic()
        self.stalled = stalled_microseconds()
        self.cpu = _session_cpu(session) if session else 0.0

    def read(self, session: int) -> Run:
        seconds = time.monotonic() - self.started
        stalled = (stalled_microseconds() - self.stalled) / 1e6
        return Run(
            round(seconds, 2),
            round(_session_cpu(session) - self.cpu, 2),
            round(min(1.0, stalled / seconds), 2),
        )


def stalled_microseconds() -> int:
    pressure = Path("/proc/pressure/cpu")
    return int(pressure.read_text().split("total=")[1].split()[0]) if pressure.exists() else 0


def _session(session: int) -> Iterator[tuple[int, str, int]]:
    """Process id, state and clock ticks (those of ended children that were waited for included) of its processes."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            yield int(stat.parent.name), fields[0], sum(int(field) for field in fields[11:15])


def _session_cpu(session: int) -> float:
    """Processor seconds of all processes of the session."""
    return sum(ticks for _, _, ticks in _session(session)) / os.sysconf("SC_CLK_TCK")
