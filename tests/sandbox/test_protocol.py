"""HTTP as clients speak it who are not those of the other tests."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection, parse_headers
from typing import Any

import pytest

from tests.support.sandbox import Sandbox

# As the JDK's client sends it with every request, and langchain4j with it.
WISH = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"}
COMMAND = {"command": "echo $((40 + 2)) of the body"}
PING = {"jsonrpc": "2.0", "id": 7, "method": "ping"}
MCP = {"Accept": "application/json, text/event-stream"}


def answer(connection: HTTPConnection) -> Any:
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    assert response.getheader("upgrade") is None
    return json.loads(body)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_a_wish_for_http_2_is_ignored(sandbox: Sandbox, chunked: bool) -> None:
    """Again and again on one connection: the body arrives, and the connection stays what it is."""
    connection = HTTPConnection("127.0.0.1", sandbox.port, timeout=30)

    def post(path: str, content: Any, headers: dict[str, str]) -> Any:
        body = json.dumps(content).encode()
        given = {"Content-Type": "application/json", **headers}
        connection.request("POST", path, iter([body[:9], body[9:]]) if chunked else body, given, encode_chunked=chunked)
        return answer(connection)

    for wish in (WISH, {}, WISH, WISH):
        assert post("/v1/bash/exec", COMMAND, wish)["data"]["stdout"] == "42 of the body\n"
        assert post("/mcp", PING, {**wish, **MCP})["id"] == 7
        connection.request("GET", "/v1/ping", headers=wish)
        assert answer(connection)["data"] == "pong"


def test_the_wish_and_the_body_may_come_in_any_pieces(sandbox: Sandbox) -> None:
    body = json.dumps(COMMAND)
    head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **WISH}.items())
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    # Two requests at once, so that the first one's end lies within a piece.
    sent = f"POST /v1/bash/exec HTTP/1.1\r\n{head}{body}".encode() * 2
    for size in (len(sent), 100, 7):
        with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
            connection.settimeout(30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(sent), size):
                connection.sendall(sent[at : at + size])
            with connection.makefile("rb") as stream:
                for _ in range(2):
                    assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
                    headers = parse_headers(stream)
                    content = stream.read(int(headers["content-length"]))
                    assert json.loads(content)["data"]["stdout"] == "42 of the body\n"


def test_a_tunnel_is_refused(sandbox: Sandbox) -> None:
    """CONNECT looks to the parser like a wish, too."""
    with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
        connection.settimeout(30)
        connection.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 4")
    assert sandbox.client.get("/v1/ping").status_code == 200
