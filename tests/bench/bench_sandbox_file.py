"""64 MiB written and read back through the file API, against plain file I/O behind the smallest HTTP server.

    python -m tests.bench.bench_sandbox_file

Both servers are processes of their own on loopback, use the same disk, and are asked by the same client in turns, so
that other work on the machine slows both. Two baselines: a threading `http.server` that copies the body to a file and
answers with sendfile, and Starlette under uvicorn that streams both. The better one of each round counts. Results go
to build/bench/sandbox_file.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import quote

from tests.support.sandbox import free_port, running

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "build" / "bench" / "sandbox_file.json"
SIZE = 64 * 2**20
TARGET = 0.6
BLOCK = 2**20

PLAIN = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_PUT(self):
        left = int(self.headers["content-length"])
        with open(self.path, "wb") as file:
            while left:
                block = self.rfile.read(min(left, 2**20))
                file.write(block)
                left -= len(block)
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def do_GET(self):
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.send_response(200); self.send_header("content-length", str(size)); self.end_headers()
            self.wfile.flush()
            place = 0
            while place < size:
                place += os.sendfile(self.connection.fileno(), file.fileno(), place, size - place)
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

STARLETTE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, Response
from starlette.routing import Route
async def put(request):
    with open("/" + request.path_params["path"], "wb") as file:
        async for chunk in request.stream():
            file.write(chunk)
    return Response()
async def get(request):
    return FileResponse("/" + request.path_params["path"])
routes = [Route("/{path:path}", put, methods=["PUT"]), Route("/{path:path}", get)]
uvicorn.run(Starlette(routes=routes), port=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def server(program: str) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", program, str(port)])
    try:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def exchange(port: int, content: bytes, put: str, get: str) -> tuple[float, float]:
    """Seconds to write, and to read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    buffer = bytearray(BLOCK)
    start = time.perf_counter()
    connection.request("PUT", put, content)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
    written = time.perf_counter()
    connection.request("GET", get)
    answer = connection.getresponse()
    size = 0
    while count := answer.readinto(buffer):
        size += count
    end = time.perf_counter()
    connection.close()
    assert (answer.status, size) == (200, len(content))
    return written - start, end - written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    content = os.urandom(SIZE)
    with tempfile.TemporaryDirectory(prefix="bench-file-") as place, ExitStack() as stack:
        sandbox = stack.enter_context(running(Path(place) / "sandbox"))
        ports = {name: stack.enter_context(server(text)) for name, text in (("plain", PLAIN), ("starlette", STARLETTE))}
        file = sandbox.workspace / "file"
        ours = f"path={quote(str(file))}"
        results: dict[str, list[tuple[float, float]]] = {"plain": [], "starlette": [], "sandbox": []}
        for _ in range(arguments.rounds + 1):
            for name, port in ports.items():
                results[name].append(exchange(port, content, f"{place}/{name}", f"{place}/{name}"))
            results["sandbox"].append(
                exchange(sandbox.port, content, f"/v1/file/content?{ours}", f"/v1/file/download?{ours}")
            )
        assert file.read_bytes() == content
    results = {name: runs[1:] for name, runs in results.items()}  # the first round warms up

    print(f"{'64 MiB over loopback, medians':32} {'write s':>8} {'read s':>8} {'both s':>8} {'MiB/s':>7}")
    for name, runs in results.items():
        both = median(sum(run) for run in runs)
        rate = 2 * SIZE / 2**20 / both
        print(f"{name:32} {median(w for w, _ in runs):8.3f} {median(r for _, r in runs):8.3f} {both:8.3f} {rate:7.0f}")
    best = [min(map(sum, pair)) for pair in zip(results["plain"], results["starlette"], strict=True)]
    ratio = median(reference / sum(run) for reference, run in zip(best, results["sandbox"], strict=True))
    print(f"speed against the better baseline: {ratio:.2f} (target: at least {TARGET})")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"ratio": ratio, "target": TARGET, "seconds": results}, indent=1) + "\n")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
