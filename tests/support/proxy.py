"""Proxies on loopback: a company's, which is tinyproxy, and one that lets nothing through."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.support.sandbox import free_port

REQUEST = re.compile(r"Request \(file descriptor \d+\): (?:CONNECT |\w+ https?://)([^/: ]+)")


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    url: str
    log: Path

    @property
    def hosts(self) -> set[str]:
        """Hosts that it has been asked for."""
        return set(REQUEST.findall(self.log.read_text(errors="replace")))


@contextmanager
def running() -> Iterator[Proxy]:
    """A proxy until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        port, log = free_port(), Path(folder, "log")
        settings = Path(folder, "tinyproxy.conf")
        settings.write_text(
            f"Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 600\nMaxClients 200\n"
            f'LogFile "{log}"\nLogLevel Connect\n'
        )
        with subprocess.Popen(["tinyproxy", "-d", "-c", settings], stdout=subprocess.DEVNULL) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                _wait(url)
                yield Proxy(url, log)
            finally:
                process.terminate()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(url)
        except httpx.TransportError:
            assert time.monotonic() < deadline, "tinyproxy does not answer"
            time.sleep(0.1)
        else:
            return


@dataclass(frozen=True)
class Closed:
    """A proxy that refuses every request."""

    url: str
    asked: list[str] = field(default_factory=list)
    """What clients wanted to reach: hosts with ports, or whole addresses."""


@contextmanager
def closed() -> Iterator[Closed]:
    """A proxy that refuses every request, until the block ends."""

    class Refuse(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            proxy.asked.append(self.path)
            self.send_error(403)

        do_CONNECT = do_GET = do_HEAD = do_POST = refuse

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        proxy = Closed(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
