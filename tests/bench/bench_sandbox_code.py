"""Python `print('hi')` in a warm session: our HTTP API, the same kernel over ZMQ directly, jupyter-server's websocket.

    python -m tests.bench.bench_sandbox_code [--rounds N] [--calls N]

All three run at the same time and take turns, each over one kept connection. Results go to
build/bench/sandbox_code.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import httpx
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from websockets.sync.client import connect

from aisandbox.builder.environments import environment
from aisandbox.manifest import REPOSITORY
from sandbox_api.code.kernel import ARGUMENTS
from tests.support.sandbox import free_port, program, running, wait_for

RESULTS = REPOSITORY / "build" / "bench" / "sandbox_code.json"
CODE = "print('hi')"
MOST_OF_ZMQ = 1.25
LEAST_OF_JUPYTER = 5.0
Call = Callable[[], None]


@contextmanager
def ours(root: Path) -> Iterator[Call]:
    with running(root) as sandbox:

        def call() -> None:
            answer = sandbox.client.post("/v1/jupyter/execute", json={"code": CODE, "session_id": "bench"})
            assert answer.json()["data"]["stdout"] == "hi\n"

        yield call


@contextmanager
def zmq_directly(root: Path) -> Iterator[Call]:
    """jupyter_client's own client on a kernel that is started as ours are, over ipc as ours are."""
    root.mkdir()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        file, _ = write_connection_file(str(Path(folder) / "kernel.json"), transport="ipc", ip=f"{folder}/k")
        python = environment("workbench") / "bin" / "python"
        variables = {**os.environ, "IPYTHONDIR": str(root)}
        with program([str(python), *ARGUMENTS, "-f", file], variables, root / "kernel.log"):
            client = BlockingKernelClient(connection_file=file)
            client.load_connection_file()
            client.start_channels()
            client.wait_for_ready(timeout=60)

            def call() -> None:
                texts: list[str] = []

                def hear(message: dict[str, dict[str, str]]) -> None:
                    if message["header"]["msg_type"] == "stream":
                        texts.append(message["content"]["text"])

                client.execute_interactive(CODE, allow_stdin=False, output_hook=hear)
                assert "".join(texts) == "hi\n"

            yield call
            client.stop_channels()


@contextmanager
def jupyter_server(root: Path) -> Iterator[Call]:
    root.mkdir()
    port = free_port()
    python = environment("workbench") / "bin" / "python"
    variables = {
        **os.environ,
        "JUPYTER_RUNTIME_DIR": str(root),
        "JUPYTER_CONFIG_DIR": str(root),
        "IPYTHONDIR": str(root),
    }
    arguments = [
        str(python), "-m", "jupyter_server", f"--ServerApp.port={port}", "--IdentityProvider.token=",
        "--ServerApp.disable_check_xsrf=True", "--ServerApp.allow_root=True", f"--ServerApp.root_dir={root}",
    ]  # fmt: skip
    log = root / "server.log"
    with (
        program(arguments, variables, log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        wait_for("/api", process, log, client)
        kernel = client.post("/api/kernels", json={"name": "python3"}).json()["id"]
        session = uuid.uuid4().hex
        with connect(
            f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels?session_id={session}", max_size=None
        ) as socket:

            def call() -> None:
                identity = uuid.uuid4().hex
                header = {
                    "msg_id": identity,
                    "username": "",
                    "session": session,
                    "msg_type": "execute_request",
                    "version": "5.3",
                    "date": "",
                }
                content = {
                    "code": CODE,
                    "silent": False,
                    "store_history": True,
                    "user_expressions": {},
                    "allow_stdin": False,
                    "stop_on_error": True,
                }
                socket.send(
                    json.dumps(
                        {
                            "header": header,
                            "parent_header": {},
                            "metadata": {},
                            "content": content,
                            "channel": "shell",
                            "buffers": [],
                        }
                    )
                )
                replied = idle = said = False
                while not (replied and idle):
                    message = json.loads(socket.recv(timeout=60))
                    if message["parent_header"].get("msg_id") != identity:
                        continue
                    kind = message["header"]["msg_type"]
                    replied |= kind == "execute_reply"
                    said |= kind == "stream"
                    idle |= kind == "status" and message["content"]["execution_state"] == "idle"
                assert said

            yield call
        client.delete(f"/api/kernels/{kernel}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=40, help="calls of each in one round")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        calls = {
            "ours": stack.enter_context(ours(folder / "ours")),
            "zmq": stack.enter_context(zmq_directly(folder / "zmq")),
            "jupyter_server": stack.enter_context(jupyter_server(folder / "jupyter")),
        }
        for call in calls.values():
            for _ in range(10):
                call()
        time.sleep(2)  # our next warm kernel has started by then
        rounds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.rounds):
            for name, call in calls.items():
                times = []
                for _ in range(options.calls):
                    start = time.perf_counter()
                    call()
                    times.append(time.perf_counter() - start)
                rounds[name].append(median(times) * 1000)
    figures = {f"{name}_ms": round(median(values), 2) for name, values in rounds.items()}
    of_zmq = figures["ours_ms"] / figures["zmq_ms"]
    of_jupyter = figures["jupyter_server_ms"] / figures["ours_ms"]
    met = of_zmq <= MOST_OF_ZMQ and of_jupyter >= LEAST_OF_JUPYTER
    print(
        f"ours {figures['ours_ms']} ms, ZMQ directly {figures['zmq_ms']} ms, "
        f"jupyter-server {figures['jupyter_server_ms']} ms"
    )
    print(f"of ZMQ directly: {of_zmq:.2f} x (target: at most {MOST_OF_ZMQ})")
    print(f"faster than jupyter-server: {of_jupyter:.1f} x (target: at least {LEAST_OF_JUPYTER:.0f})")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    results = {
        **figures,
        "of_zmq": round(of_zmq, 2),
        "faster_than_jupyter_server": round(of_jupyter, 1),
        "rounds": rounds,
        "met": met,
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
