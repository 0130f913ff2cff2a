"""Doubles of the clouds' metadata services: their addresses, headers and refusals, and misbehaviour.

with serving(aws(user_data="model: Org/Name", tags={"aisandbox:model": "Org/Name"})) as double:
    ... double.address ...
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By name in small letters."""


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Cloud = Callable[[Request], Answer]
Tree = Mapping[str, bytes]
"""What an instance of AWS is told, by path below the version, such as `meta-data/instance-id`. A path with a slash at
its end is a folder's listing, where that is more than the names of what is in it."""
MISSING = Answer(404, b"<html>404 - Not Found</html>", {"Content-Type": "text/html"})


@dataclass
class Faults:
    """How the service misbehaves; may be changed while it serves."""

    status: int | None = None
    body: bytes | None = None
    delay_s: float = 0
    drip_s: float = 0
    """Pause after every byte of the body."""
    drip_head: bool = False
    """Never end the head: another header line now and then."""
    endless: bool = False
    cut: bool = False
    """Break the connection off in the middle of the body."""
    redirect: str | None = None
    garbage: bytes | None = None
    """Sent instead of HTTP."""


class Double(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cloud: Cloud, bind: str = "127.0.0.1") -> None:
        super().__init__((bind, 0), Handler)
        self.cloud = cloud
        self.faults = Faults()
        self.requests: list[Request] = []
        self.stopping = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has given up is none of the test's concern."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece, as real servers send them
    server: Double

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, unquote(parts.path), query, headers)
        self.server.requests.append(request)
        faults = self.server.faults
        if faults.garbage is not None:
            self.wfile.write(faults.garbage)
            self.close_connection = True
            return
        self.server.stopping.wait(faults.delay_s)
        answer = self.server.cloud(request)
        status = faults.status or answer.status
        body = answer.body if faults.body is None else faults.body
        if faults.redirect:
            status, answer = 302, Answer(302, b"", {"Location": faults.redirect})
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        while faults.drip_head and not self.server.stopping.wait(0.1):
            self.flush_headers()
            self.wfile.write(b"X-More: and more\r\n")
            self.wfile.flush()
        if not faults.endless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._send(body, faults)

    do_PUT = do_GET  # noqa: N815 - the name is given

    def _send(self, body: bytes, faults: Faults) -> None:
        if faults.cut:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif faults.endless:
            self.close_connection = True
            while not self.server.stopping.is_set():
                self.wfile.write(b"x" * 65536)
        elif faults.drip_s:
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.stopping.wait(faults.drip_s):
                    return
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(cloud: Cloud, bind: str = "127.0.0.1") -> Iterator[Double]:
    """The cloud's service, on loopback unless told otherwise."""
    double = Double(cloud, bind)
    thread = threading.Thread(target=double.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield double
    finally:
        double.stopping.set()
        double.shutdown()
        thread.join()
        double.server_close()


def aws(user_data: bytes | str | None = None, tags: Mapping[str, str] | None = None, disabled: bool = False) -> Cloud:
    """EC2, for an instance that was given these. Tags are there only when the instance allows them in its metadata."""
    if disabled:
        return lambda _request: Answer(403)
    data = user_data.encode() if isinstance(user_data, str) else user_data
    tree = {**({} if data is None else {"user-data": data}), **({} if tags is None else instance_tags(tags))}
    return imds(lambda: tree)


def instance_tags(tags: Mapping[str, str]) -> dict[str, bytes]:
    """The part of an instance's tree that holds its tags."""
    folder = "meta-data/tags/instance/"
    return {folder: "\n".join(tags).encode(), **{folder + name: value.encode() for name, value in tags.items()}}


def imds(tree: Callable[[], Tree]) -> Cloud:
    """EC2's service with tokens required (IMDSv2), which tells what `tree` says at the time."""
    tokens: dict[str, float] = {}

    def answer(request: Request) -> Answer:
        if "x-forwarded-for" in request.headers:
            return Answer(403)
        if request.path == "/latest/api/token":
            if request.method != "PUT":
                return Answer(405)
            ttl = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            if not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
                return Answer(400)
            token = secrets.token_urlsafe(40)
            tokens[token] = time.monotonic() + int(ttl)
            return Answer(200, token.encode(), {"X-aws-ec2-metadata-token-ttl-seconds": ttl})
        if tokens.get(request.headers.get("x-aws-ec2-metadata-token", ""), 0) < time.monotonic():
            return Answer(401)
        found = re.fullmatch(r"/(latest|20\d\d-\d\d-\d\d)/(.+)", request.path)
        body = _find(tree(), found[2]) if found else None
        kind = "application/octet-stream" if found and found[2] == "user-data" else "text/plain"
        return MISSING if body is None else Answer(200, body, {"Content-Type": kind})

    return answer


def _find(tree: Tree, path: str) -> bytes | None:
    if path in tree and not path.endswith("/"):
        return tree[path]
    folder = f"{path.rstrip('/')}/"
    if folder in tree:
        return tree[folder]
    # What is a folder itself is listed with a slash at its end.
    inside = (name.removeprefix(folder).partition("/") for name in tree if name.startswith(folder))
    return "\n".join(dict.fromkeys(name + slash for name, slash, _ in inside)).encode() or None


def gcp(attributes: Mapping[str, object] | None = None) -> Cloud:
    """Compute Engine's metadata server."""

    def answer(request: Request) -> Answer:
        flavour = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
        if request.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in request.headers:
            return Answer(403, b"Missing Metadata-Flavor:Google header.", flavour)
        folder = "/computeMetadata/v1/instance/attributes"
        if request.path == folder:
            return Answer(301, b"", {**flavour, "Location": f"{folder}/"})
        if request.path != f"{folder}/":
            return MISSING
        if request.query.get("recursive") == "true":
            body = json.dumps(dict(attributes or {})).encode()
            return Answer(200, body, {**flavour, "Content-Type": "application/json"})
        return Answer(200, "\n".join(attributes or {}).encode(), {**flavour, "Content-Type": "application/text"})

    return answer


def azure(user_data: bytes | str = b"") -> Cloud:
    """Azure's Instance Metadata Service."""
    data = user_data.encode() if isinstance(user_data, str) else user_data

    def answer(request: Request) -> Answer:
        def bad(text: str) -> Answer:
            return Answer(400, json.dumps({"error": text}).encode(), {"Content-Type": "application/json"})

        if request.headers.get("metadata") != "true":
            return bad("Bad request. Required metadata header not specified")
        if "x-forwarded-for" in request.headers:
            return bad("Bad request. X-Forwarded-For is not allowed")
        if request.query.get("api-version", "") < "2021-01-01":
            return bad("Bad request. api-version was not specified or is too old for userData")
        if request.path != "/metadata/instance/compute/userData" or request.query.get("format") != "text":
            return MISSING
        return Answer(200, base64.b64encode(data), {"Content-Type": "text/plain; charset=utf-8"})

    return answer


def vultr(variables: Mapping[str, str] | None = None) -> Cloud:
    """Vultr's service, with the variables of the marketplace application."""

    def answer(request: Request) -> Answer:
        name = request.path.removeprefix("/v1/internal/app-")
        if request.headers.get("metadata-token") != "vultr":
            return Answer(401)
        return Answer(200, variables[name].encode()) if variables and name in variables else MISSING

    return answer
