"""The engine as a real process, with a stand-in for vLLM's API server: its fast start can only fail."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from aisandbox.instance.deployment import LOCATED, Serving
from tests.support import deployments

REPOSITORY = Path(__file__).resolve().parents[2]

KV_CACHE = (
    "(EngineCore pid=9) ERROR 11-22 14:13:40 [core.py:1510] ValueError: To serve at least one request with the model's "
    "max seq len ({asked}), (4.0 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB). "
    "Based on the available memory, the estimated maximum model length is {fits}. Try increasing "
    "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
)
"""What vLLM 0.32 says."""

# A model is a folder. `fails` in it is what the server prints before it ends; `fits` is the longest context that the
# server has memory for; asked for the one in `fails-for`, it is killed. Any other model, and any that is no folder, is
# served.
API_SERVER = f"""
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
print("arguments", sys.argv[1:], flush=True)
print("GPUs", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
def option(name):
    return sys.argv[len(sys.argv) - sys.argv[::-1].index(name)]
model = Path(option("--model"))
failure = None
if (model / "fails").exists():
    failure = (model / "fails").read_text()
elif (model / "fits").exists() and int(option("--max-model-len")) > int((model / "fits").read_text()):
    failure = {KV_CACHE!r}.format(asked=option("--max-model-len"), fits=(model / "fits").read_text())
if (model / "fails-for").exists() and option("--max-model-len") == (model / "fails-for").read_text():
    os.kill(os.getpid(), 9)
if failure:
    print(failure, flush=True)
    raise RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {{}}")
class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(model).encode())
    def log_message(self, *args):
        pass
HTTPServer(("127.0.0.1", int(option("--port"))), Server).serve_forever()
"""


class Engine:
    """An engine of its own, in a folder of its own. `start` starts it, again and again, as systemd does."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.python = python
        package = folder / "python" / "vllm" / "entrypoints" / "openai"
        package.mkdir(parents=True)
        (package / "api_server.py").write_text(API_SERVER)
        for part in (package, package.parent, package.parent.parent):
            (part / "__init__.py").touch()  # goes before an installed vLLM
        (folder / "run").mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, **environment: str) -> subprocess.Popen[str]:
        own = {
            "PYTHONPATH": f"{self.folder / 'python'}:{REPOSITORY}",
            "AISANDBOX_RUN": str(self.folder / "run"),
            "AISANDBOX_API_PORT": str(self.port),
            "AISANDBOX_ENGINE_RETRY": "0.5",
            "VLLM_CACHE_ROOT": str(self.folder / "cache"),
        }
        process = subprocess.Popen(
            [self.python, "-m", "aisandbox.instance.serve.engine"],
            env=os.environ | own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> str:
        """End it; returns what it has said. Its last status is gone, so that a later one is not mistaken for it."""
        process.terminate()
        output, _ = process.communicate(timeout=5)
        (self.folder / "run" / "status" / "engine.json").unlink(missing_ok=True)
        return output

    def ask(self, *candidates: Serving, devices: tuple[str, ...] = ()) -> None:
        """Tell it what to serve, best first, as the model step does."""
        deployments.located(*candidates, devices=devices).save(self.folder / "run" / LOCATED)

    def model(self, name: str, **files: object) -> str:
        """Make a model's folder with these files in it; returns its path, in the layout of the hub's cache."""
        folder = self.folder / "hub" / f"models--example--{name}" / "snapshots" / "0"
        folder.mkdir(parents=True)
        for file, content in ({"config.json": "{}"} | files).items():
            (folder / file).write_text(str(content))
        return str(folder)

    @property
    def status(self) -> dict[str, Any]:
        path = self.folder / "run" / "status" / "engine.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def wait(self, phase: str, state: str, text: str = "", seconds: float = 30) -> dict[str, Any]:
        """The status once it says so."""
        return self._wait(
            f"{phase}/{state} {text}",
            lambda status: (status.get("phase"), status.get("state")) == (phase, state) and text in status["message"],
            seconds,
        )

    def _wait(self, what: str, condition: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not condition(status := self.status):
            if time.monotonic() > deadline:
                raise AssertionError(f"not {what} but {status}")
            time.sleep(0.03)
        return status

    def served(self) -> str:
        """The model that answers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().read().decode()
        finally:
            connection.close()


@contextmanager
def engine(folder: Path, python: Path = Path(sys.executable)) -> Iterator[Engine]:
    """An engine whose processes are gone afterwards."""
    made = Engine(folder, python)
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.communicate()
