"""`echo hi` through our shell API, beside the bare shell and beside other sandbox servers; start and idle memory, too.

    python -m tests.bench.bench_sandbox_exec [--rounds N]

All servers run at the same time, and each round measures them one after another, so that other work on this machine
meets all alike. Medians of the rounds. Results go to build/bench/sandbox_exec.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from aisandbox.builder.environments import environment
from aisandbox.manifest import REPOSITORY
from sandbox_api.settings import Settings
from tests.bench.sandbox_peers import PEERS, Server, wait_for_port
from tests.support.sandbox import free_port, running

RESULTS = REPOSITORY / "build" / "bench" / "sandbox_exec.json"
COMMAND = "echo hi"
WARM_UP, REQUESTS = 20, 200
CLIENTS, REQUESTS_OF_EACH = 8, 40


def sequential(run: object, requests: int = REQUESTS) -> float:
    """Median milliseconds of one call after another."""
    assert callable(run)
    times = []
    for number in range(WARM_UP + requests):
        start = time.perf_counter()
        run()
        if number >= WARM_UP:
            times.append(time.perf_counter() - start)
    return median(times) * 1000


def concurrent(server: Server) -> float:
    """Requests per second of several clients, each with a connection of its own."""
    barrier = threading.Barrier(CLIENTS + 1)

    def client() -> None:
        connection = server.connect()
        server.execute(connection)
        barrier.wait()
        for _ in range(REQUESTS_OF_EACH):
            server.execute(connection)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return CLIENTS * REQUESTS_OF_EACH / (time.perf_counter() - start)


def resident_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def start_seconds(variables: dict[str, str]) -> float:
    """From the start of the process until /v1/sandbox answers."""
    port = free_port()
    variables = {name: value for name, value in variables.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [environment("sandbox") / "bin" / "python", "-m", "sandbox_api"],
        env={**variables, "SANDBOX_PORT": str(port)},
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port)
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/v1/sandbox")
        connection.getresponse().read()
        return time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(20)


def line(what: str, value: str, ratio: float, bound: str, good: bool) -> bool:
    print(f"{what:44} {value:>12} {ratio:8.2f}   {bound:<24} {'ok' if good else 'MISSED'}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    shell = str(Settings().shell)
    body = json.dumps({"command": COMMAND}).encode()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-exec-")))
        sandbox = stack.enter_context(running(folder / "sandbox"))
        time.sleep(2)  # what warms up in the background
        idle = resident_mib(sandbox.process.pid)
        peers = [stack.enter_context(peer(folder, shell, COMMAND)) for peer in PEERS]
        ours = [
            Server(
                f"ours {path}", sandbox.port, sandbox.process.pid, path, body,
                lambda answer: answer["data"]["stdout"] == "hi\n",
            )
            for path in ("/v1/shell/exec", "/v1/bash/exec")
        ]  # fmt: skip
        one: dict[str, list[float]] = {}
        many: dict[str, list[float]] = {}
        starts = []
        start_seconds({**sandbox.variables, "SANDBOX_ROOT": str(folder / "start")})  # so that all is byte-compiled
        for number in range(rounds):
            spawn = sequential(lambda: subprocess.run([shell, "-c", COMMAND], capture_output=True, check=True))
            one.setdefault("spawn", []).append(spawn)
            for server in (*ours, *peers):
                connection = server.connect()
                one.setdefault(server.name, []).append(
                    sequential(lambda server=server, connection=connection: server.execute(connection))
                )
                connection.close()
            for server in (*ours, *peers):
                many.setdefault(server.name, []).append(concurrent(server))
            starts.append(start_seconds({**sandbox.variables, "SANDBOX_ROOT": str(folder / f"start-{number}")}))
            print(f"round {number + 1}/{rounds}: spawn {spawn:.2f} ms", file=sys.stderr)
    milliseconds = {name: median(values) for name, values in one.items()}
    rates = {name: median(values) for name, values in many.items()}
    fastest = min(milliseconds[peer.name] for peer in peers)
    best = max(rates[peer.name] for peer in peers)
    print(f"{'':44} {'median':>12} {'ratio':>8}   target")
    print(f"{'spawning the shell directly':44} {milliseconds['spawn']:9.2f} ms")
    for peer in peers:
        print(f"{peer.name:44} {milliseconds[peer.name]:9.2f} ms {rates[peer.name]:8.0f} requests/s")
    met = []
    for server in ours:
        value = milliseconds[server.name]
        shown, of_spawn = f"{value:.2f} ms", value / milliseconds["spawn"]
        met.append(line(server.name, shown, of_spawn, "<= 1.6 x the spawn", of_spawn <= 1.6))
        met.append(line("", shown, value / fastest, "<= 0.7 x fastest peer", value <= 0.7 * fastest))
        rate = rates[server.name]
        met.append(line(f"  {CLIENTS} clients", f"{rate:.0f}/s", rate / best, ">= 2 x fastest peer", rate >= 2 * best))
    start = median(starts)
    met.append(line("start to /v1/sandbox", f"{start:.2f} s", start, "<= 1.0 s", start <= 1.0))
    met.append(line("idle memory", f"{idle:.0f} MiB", idle / 120, "<= 120 MiB", idle <= 120))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    results = {"milliseconds": one, "requests_per_second": many, "start_seconds": starts, "idle_mib": idle}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
