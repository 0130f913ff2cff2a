"""Forwarding: a small program of our own, on a port and on a unix socket, shows what reaches it and what returns."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.sandbox import Sandbox, free_port, program, running

UPSTREAM = """
import asyncio, json, sys
from aiohttp import web

state = {"left": 0, "closed": None}

async def echo(request):
    body = await request.read()
    headers = [[name.lower(), value] for name, value in request.headers.items()]
    return web.json_response({"method": request.method, "path": request.raw_path, "headers": headers,
                              "body": body.decode("latin-1")})

async def events(request):
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    try:
        for number in range(int(request.query.get("count", 10**6))):
            await answer.write(f"data: {number}\\n\\n".encode())
            await asyncio.sleep(0.1)
    except (ConnectionError, asyncio.CancelledError):
        state["left"] += 1
        raise
    return answer

async def count(request):
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
    return web.json_response({"size": size, "length": request.headers.get("Content-Length")})

async def big(request):
    answer = web.StreamResponse()
    await answer.prepare(request)
    for _ in range(64):
        await answer.write(b"z" * 2**20)
    return answer

async def broken(request):
    answer = web.StreamResponse(headers={"Content-Length": "100"})
    await answer.prepare(request)
    await answer.write(b"half")
    request.transport.abort()
    return answer

async def slam(request):
    request.transport.abort()
    return web.Response()

async def redirect(request):
    raise web.HTTPFound(request.query["to"])

async def cookies(request):
    answer = web.Response()
    answer.headers.add("Set-Cookie", "a=1; Path=/; HttpOnly")
    answer.headers.add("Set-Cookie", "b=2; Domain=localhost")
    answer.headers.add("Set-Cookie", "c=3; Path=/deep; SameSite=Lax")
    answer.headers.add("Set-Cookie", "sandbox-8080=stolen; Path=/")
    answer.headers["Connection"] = "X-Private"
    answer.headers["X-Private"] = "1"
    answer.headers["X-Public"] = "1"
    return answer

async def zipped(request):
    answer = web.json_response({"zipped": True})
    answer.enable_compression(web.ContentCoding.gzip)
    return answer

async def early(request):
    return web.Response(status=413, text="too much")

async def socket(request):
    if request.query.get("refuse"):
        raise web.HTTPForbidden()
    connection = web.WebSocketResponse(protocols=["second", "third"], max_msg_size=2**30)
    await connection.prepare(request)
    await connection.send_json({"origin": request.headers.get("Origin"), "host": request.headers["Host"],
                                "path": request.raw_path, "cookie": request.headers.get("Cookie")})
    async for message in connection:
        if message.data == "close":
            await connection.close(code=4001, message=b"as asked")
        elif message.type.name == "TEXT":
            await connection.send_str(message.data)
        else:
            await connection.send_bytes(message.data)
    state["closed"] = connection.close_code
    return connection

async def show(request):
    return web.json_response(state)

app = web.Application(client_max_size=2**30)
handlers = [events, count, big, broken, slam, zipped, redirect, cookies, socket, early]
for path, handler in [*((f"/{handler.__name__}", handler) for handler in handlers), ("/state", show),
                      ("/absproxy/{port}/socket", socket)]:
    app.router.add_route("*", path, handler)
app.router.add_route("*", "/{rest:.*}", echo)
kind, place = sys.argv[1].split("=")
web.run_app(app, print=None, **({"path": place} if kind == "path" else {"host": kind, "port": int(place)}))
"""


@dataclass
class Entry:
    sandbox: Sandbox
    port: int

    @property
    def client(self) -> httpx.Client:
        return self.sandbox.client

    @property
    def url(self) -> str:
        return f"{self.sandbox.url}/proxy/{self.port}"

    def seen(self, path: str = "", method: str = "GET", **options: Any) -> dict[str, Any]:
        """What the program was asked, its headers as a dictionary."""
        answer = self.client.request(method, f"/proxy/{self.port}/{path}", **options)
        assert answer.status_code == 200, answer.text
        seen: dict[str, Any] = answer.json()
        return {**seen, "headers": dict(seen["headers"])}


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    """One program on a port, and the same on the socket where code-server would be."""
    root, port = tmp_path_factory.mktemp("entry"), free_port()
    script = root / "upstream.py"
    script.write_text(UPSTREAM)
    unix = Path("/tmp") / f"entry-{free_port()}"
    settings = {
        "code_server_socket": str(unix),
        "jupyter_socket": "/tmp/nothing-here",
        "denied_ports": "9999",
        "cdp_url": f"http://127.0.0.1:{free_port()}",
    }
    with running(root, **settings) as started:
        command = [sys.executable, str(script)]
        with (
            program([*command, f"127.0.0.1={port}"], started.variables, root / "upstream.log"),
            program([*command, f"path={unix}"], started.variables, root / "unix.log"),
        ):
            for path in (f"/proxy/{port}/", "/code-server/"):
                deadline = time.monotonic() + 20
                while started.client.get(path).status_code != 200:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield Entry(started, port)


def test_request_arrives_as_it_was(entry: Entry) -> None:
    seen = entry.seen("a%2Fb/c//d%20e?x=%2F&y=ü&y=", "POST", content=b"\0body\xff", headers={"x-own": "1"})
    assert seen["method"] == "POST"
    assert seen["path"] == "/a%2Fb/c//d%20e?x=%2F&y=%C3%BC&y="
    assert seen["body"] == "\0body\xff"
    assert seen["headers"]["x-own"] == "1"
    assert entry.seen()["path"] == "/"
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        assert entry.seen("x", method)["method"] == method
    assert entry.client.head(f"/proxy/{entry.port}/x").status_code == 200


def test_headers(entry: Entry) -> None:
    headers = {
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-prefix": "/front",
        "te": "trailers",
        "proxy-authorization": "secret",
        "connection": "keep-alive, x-private",
        "x-private": "1",
        "cookie": "mine=1; sandbox-8080=ours; other=2",
        "origin": entry.sandbox.url,
        "referer": f"{entry.sandbox.url}/proxy/1/page",
    }
    seen = entry.seen("x", headers=headers)["headers"]
    assert seen["host"] == f"localhost:{entry.port}"
    assert seen["origin"] == f"http://localhost:{entry.port}"
    assert seen["referer"] == f"http://localhost:{entry.port}/proxy/1/page"
    assert seen["cookie"] == "mine=1; other=2"
    assert seen["x-forwarded-host"] == entry.sandbox.url.removeprefix("http://")
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-prefix"] == f"/front/proxy/{entry.port}"
    assert not {"te", "proxy-authorization", "x-private"} & set(seen)
    # Nothing is added to what the caller says of itself.
    assert "origin" not in entry.seen("x")["headers"]
    bare = httpx.Request("GET", f"{entry.url}/x", headers={"host": entry.sandbox.url.removeprefix("http://")})
    plain = dict(entry.client.send(bare).json()["headers"])
    assert not {"accept-encoding", "user-agent", "content-type"} & set(plain)


def test_answer_headers(entry: Entry) -> None:
    answer = entry.client.get(f"/proxy/{entry.port}/cookies")
    assert answer.headers.get_list("set-cookie") == [
        f"a=1; HttpOnly; Path=/proxy/{entry.port}/",
        f"b=2; Path=/proxy/{entry.port}/",
        f"c=3; SameSite=Lax; Path=/proxy/{entry.port}/deep",
    ]
    assert "x-private" not in answer.headers
    assert answer.headers["x-public"] == "1"
    assert len(answer.headers.get_list("date")) == 1
    zipped = entry.client.get(f"/proxy/{entry.port}/zipped", headers={"accept-encoding": "gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.json() == {"zipped": True}


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/login?next=/", "/proxy/PORT/login?next=/"),
        ("relative", "relative"),
        ("http://localhost:PORT/there", "/proxy/PORT/there"),
        ("http://elsewhere.example/x", "http://elsewhere.example/x"),
        ("//elsewhere.example/x", "//elsewhere.example/x"),
        ("/proxy/PORT/already", "/proxy/PORT/already"),
        ("ENTRY/x", "/proxy/PORT/x"),
    ],
)
def test_redirects_stay_under_the_prefix(entry: Entry, target: str, wanted: str) -> None:
    def real(text: str) -> str:
        return text.replace("PORT", str(entry.port)).replace("ENTRY", entry.sandbox.url)

    answer = entry.client.get(f"/proxy/{entry.port}/redirect", params={"to": real(target)})
    assert answer.status_code == 302
    assert answer.headers["location"] == real(wanted)


def test_slash_is_added(entry: Entry) -> None:
    answer = entry.client.get(f"/proxy/{entry.port}?a=1")
    assert (answer.status_code, answer.headers["location"]) == (307, f"{entry.port}/?a=1")
    answer = entry.client.get("/code-server?folder=/x")
    assert (answer.status_code, answer.headers["location"]) == (307, "code-server/?folder=/x")


def test_absproxy_keeps_the_path(entry: Entry) -> None:
    seen = entry.client.get(f"/absproxy/{entry.port}/a?b=1").json()
    assert seen["path"] == f"/absproxy/{entry.port}/a?b=1"


def test_unix_socket(entry: Entry) -> None:
    seen = entry.client.get("/code-server/a?b=1", headers={"origin": entry.sandbox.url}).json()
    headers, own = dict(seen["headers"]), entry.sandbox.url.removeprefix("http://")
    assert seen["path"] == "/a?b=1"
    # code-server compares these.
    assert headers["host"] == headers["x-forwarded-host"] == headers["origin"].removeprefix("http://") == own
    answer = entry.client.get("/code-server/redirect", params={"to": "/login"})
    assert answer.headers["location"] == "/code-server/login"


def test_big_bodies_stream(entry: Entry) -> None:
    piece, pieces = b"p" * 2**20, 96

    def body() -> Iterator[bytes]:
        for _ in range(pieces):
            yield piece

    memory = Path(f"/proc/{entry.sandbox.process.pid}/statm")
    before = int(memory.read_text().split()[1]) * 4096
    counted = entry.client.post(f"/proxy/{entry.port}/count", content=body()).json()
    assert counted == {"size": pieces * 2**20, "length": None}
    counted = entry.client.post(f"/proxy/{entry.port}/count", content=piece * 8).json()
    assert counted == {"size": 8 * 2**20, "length": str(8 * 2**20)}
    with entry.client.stream("GET", f"/proxy/{entry.port}/big") as answer:
        size, most = 0, 0
        for chunk in answer.iter_raw():
            size += len(chunk)
            most = max(most, int(memory.read_text().split()[1]) * 4096)
    assert size == 64 * 2**20
    assert most - before < 40 * 2**20


def test_events_come_at_once_and_end_with_the_caller(entry: Entry) -> None:
    left = entry.client.get(f"/proxy/{entry.port}/state").json()["left"]
    start = time.monotonic()
    with entry.client.stream("GET", f"/proxy/{entry.port}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: 0"
        assert time.monotonic() - start < 1
        assert answer.headers["content-type"] == "text/event-stream"
    deadline = time.monotonic() + 5
    while entry.client.get(f"/proxy/{entry.port}/state").json()["left"] == left:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_broken_answers(entry: Entry) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        entry.client.get(f"/proxy/{entry.port}/broken")
    answer = entry.client.get(f"/proxy/{entry.port}/slam")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "proxy_failed"
    early = entry.client.post(f"/proxy/{entry.port}/early", content=b"x" * 100_000)
    assert (early.status_code, early.text) == (413, "too much")
    assert entry.seen("still")["path"] == "/still"


def test_forbidden_and_closed_ports(entry: Entry) -> None:
    devtools = entry.sandbox.variables["SANDBOX_CDP_URL"].rsplit(":", 1)[1]
    for port in (entry.sandbox.port, devtools, 9999, 22, 80, 0, 65536, 99999999, "abc", "-1", "１２３４", "3000x"):
        for prefix in ("proxy", "absproxy"):
            answer = entry.client.get(f"/{prefix}/{port}/")
            assert answer.status_code == 403, (prefix, port, answer.text)
            assert answer.json()["error"]["code"] == "port_forbidden"
    answer = entry.client.get(f"/proxy/{free_port()}/")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "port_closed"
    page = entry.client.get(f"/proxy/{free_port()}/", headers={"accept": "text/html"})
    assert page.status_code == 502
    assert "refresh" in page.text
    page = entry.client.get("/proxy/22/", headers={"accept": "text/html"})
    assert page.status_code == 403
    assert "refresh" not in page.text


def test_the_limit_of_json_is_not_that_of_programs(entry: Entry, tmp_path: Path) -> None:
    with running(tmp_path, body_bytes="1024") as small:
        assert small.client.post("/v1/bash/exec", content=b"x" * 2048).status_code == 413
        for prefix in ("proxy", "absproxy"):
            answer = small.client.post(f"/{prefix}/{entry.port}/up", content=b"x" * 2048)
            assert (answer.status_code, len(answer.json()["body"])) == (200, 2048), prefix
        form = {"file": ("large.txt", b"x" * 2048)}
        stored = small.client.post("/terminal-server/files/upload", files=form).json()
        assert stored == {"path": f"{small.workspace}/large.txt", "size": 2048}


def test_ipv6_loopback(entry: Entry, tmp_path: Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 here")
    script = tmp_path / "upstream.py"
    script.write_text(UPSTREAM)
    with program([sys.executable, str(script), f"::1={port}"], entry.sandbox.variables, tmp_path / "log"):
        deadline = time.monotonic() + 20
        while (answer := entry.client.get(f"/proxy/{port}/x")).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer.json()["path"] == "/x"


def ws(entry: Entry, path: str) -> str:
    return f"ws://127.0.0.1:{entry.sandbox.port}{path}"


@pytest.mark.parametrize("prefix", ["/proxy/PORT", "/absproxy/PORT", "/code-server"])
async def test_websocket(entry: Entry, prefix: str) -> None:
    prefix = prefix.replace("PORT", str(entry.port))
    headers = {"cookie": "mine=1; sandbox-8080=ours"}
    async with connect(
        ws(entry, f"{prefix}/socket?a=%20b"), subprotocols=["first", "second"], additional_headers=headers,  # type: ignore[list-item]
        origin=entry.sandbox.url, max_size=None,  # type: ignore[arg-type]
    ) as connection:  # fmt: skip
        assert connection.subprotocol == "second"
        hello = json.loads(await connection.recv())
        assert hello["origin"] == f"http://{hello['host']}"
        assert hello["path"].endswith("/socket?a=%20b")
        assert hello["cookie"] == "mine=1"
        for message in ("text ü", b"\0bytes", "", b"", "t" * (2 * 2**20), b"b" * (20 * 2**20)):
            await connection.send(message)
            assert await connection.recv() == message
        await connection.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")


async def test_callers_close_reaches_the_program(entry: Entry) -> None:
    async with connect(ws(entry, f"/proxy/{entry.port}/socket")) as connection:
        await connection.recv()
        await connection.close(4002, "bye")
    deadline = time.monotonic() + 5
    while entry.client.get(f"/proxy/{entry.port}/state").json()["closed"] != 4002:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_refused_websockets(entry: Entry) -> None:
    for path, status, code in (
        (f"/proxy/{entry.port}/socket?refuse=1", 502, "proxy_failed"),
        (f"/proxy/{free_port()}/socket", 502, "port_closed"),
        (f"/proxy/{entry.sandbox.port}/v1/shell/ws", 403, "port_forbidden"),
        ("/jupyter/api/kernels/x/channels", 503, "service_unavailable"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connect(ws(entry, path))
        assert refused.value.response.status_code == status, path
        assert json.loads(refused.value.response.body or b"")["error"]["code"] == code


def test_services_that_are_not_up(entry: Entry, sandbox: Sandbox) -> None:
    for client, path, title in (
        (entry.client, "/jupyter", "Starting"),
        (entry.client, "/jupyter/lab", "Starting"),
        (sandbox.client, "/jupyter", "Not available"),
        (sandbox.client, "/code-server/", "Not available"),
    ):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "service_unavailable"
        page = client.get(path, headers={"accept": "text/html,application/xhtml+xml"})
        assert page.status_code == 503
        assert f"<h1>{title}" in page.text
        assert ('http-equiv="refresh"' in page.text) == (title == "Starting")


def test_credentials_stay_here(tmp_path: Path) -> None:
    port = free_port()
    script = tmp_path / "upstream.py"
    script.write_text(UPSTREAM)
    key = {"x-api-key": "secret-key-of-the-tests"}
    with (
        running(tmp_path, auth="1", api_keys="secret-key-of-the-tests") as started,
        program([sys.executable, str(script), f"127.0.0.1={port}"], started.variables, tmp_path / "log"),
    ):
        path, deadline = f"/proxy/{port}/x", time.monotonic() + 20
        while (answer := started.client.get(path, headers=key)).status_code != 200:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        assert started.client.get(path).status_code == 401
        for headers in (key, {"authorization": "Bearer secret-key-of-the-tests"}):
            assert "secret-key" not in started.client.get(path, headers=headers).text
        ticket = started.client.post("/tickets", headers=key, json={"path": f"/proxy/{port}"}).json()
        ticket = (ticket.get("data") or ticket)["ticket"]
        first = started.client.get(f"/proxy/{port}/x?ticket={ticket}&kept=1", follow_redirects=True)
        assert first.status_code == 200, first.text
        assert first.json()["path"] == "/x?kept=1"
        assert ticket not in first.text
        assert "sandbox-" not in first.text
