"""A double of those who know of vulnerabilities: PyPI's JSON, Debian's security tracker and npm's advisories."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Advisories:
    """What the double knows, and what it was asked. `broken` maps the start of a path to what is answered instead."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.pypi: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.debian: dict[str, Any] = {}
        self.npm: dict[str, list[dict[str, Any]]] = {}
        self.broken: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []

    @property
    def options(self) -> list[str]:
        """Options of `audit` that lead here."""
        return ["--pypi", self.address, "--debian", f"{self.address}/tracker/data/json", "--npm", self.address]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        self.asked.append(f"{method} {path}")
        for start, answer in self.broken.items():
            if path.startswith(start):
                return answer
        if method == "GET" and path == "/tracker/data/json":
            return 200, json.dumps(self.debian).encode()
        if method == "POST" and path == "/-/npm/v1/security/advisories/bulk":
            wanted = json.loads(body)
            return 200, json.dumps({name: self.npm[name] for name in wanted if name in self.npm}).encode()
        match = re.fullmatch(r"/pypi/([a-z0-9-]+)/([^/]+)/json", path)
        if method == "GET" and match and (match[1], match[2]) in self.pypi:
            info = {"name": match[1], "version": match[2]}
            return 200, json.dumps({"info": info, "vulnerabilities": self.pypi[match[1], match[2]]}).encode()
        return 404, b'{"message": "Not Found"}'


@contextmanager
def serving() -> Iterator[Advisories]:
    """The double, on a port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = known.answer(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known = Advisories(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield known
        finally:
            server.shutdown()


def vulnerability(identity: str, *fixed: str, **more: Any) -> dict[str, Any]:
    """One of PyPI's."""
    return {
        "id": identity, "aliases": [f"CVE-{identity}"], "details": "What\nhappens.", "summary": None,
        "fixed_in": list(fixed), "link": "https://osv.dev/", "source": "osv", "withdrawn": None, **more,
    }  # fmt: skip
