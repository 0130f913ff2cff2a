"""DNS rebinding: chat and API answer to this machine's names only, whatever name a web page has lead here."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from aisandbox.instance.choose.options import Choice
from tests.gateway.stack import Gateway
from tests.gateway.upstream import Upstream
from tests.support import chromium

LONG = ".".join(["a" * 60] * 4)
CHOICE = Choice(
    domain="ai.example.com",
    host_names=f"proxy.example.net,*.wide.example.org,*.deep.wide.example.org,{LONG},ai.example.com",
)

OURS = [
    "127.0.0.1",
    "127.0.0.1:3000",
    "203.0.113.7",
    "203.0.113.7.",
    "[::1]",
    "[::1]:3000",
    "[2001:DB8::7]:443",
    "[::ffff:203.0.113.7]",
    "localhost",
    "LOCALHOST:3000",
    "localhost.",
    "localhost.:3000",
    "me.localhost",
    "a.b.localhost:8000",
    "sandbox",
    "open_webui:3000",
    "Debian-12",
    "ai.example.com",
    "AI.Example.COM",
    "ai.example.com.",
    "ai.example.com:443",
    "ai.example.com:80",
    "ai.example.com.:443",
    "proxy.example.net:8443",
    "a.wide.example.org",
    "a.b.wide.example.org:443",
    "a.deep.wide.example.org",
    LONG,
    f"{LONG}:65535",
]
STRANGERS = [
    "rebind.evil.example",
    "REBIND.evil.example:3000",
    "rebind.evil.example.",
    "rebind.evil.example:443",
    "evil.example.com",
    "ai.example.com.evil.example",
    "xai.example.com",
    "wide.example.org",
    "evilwide.example.org",
    "localhost.evil.example",
    "evillocalhost.example",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io",
    "203.0.113.7x.example",
    "1.2.3.4.5",
    "under_score.evil.example",
    "xn--bcher-kva.example",
    "ai.example.com@evil.example",
    "evil.example@localhost",
    "localhost:80@evil.example",
    "localhost:evil.example",
    "localhost:123456",
    "localhost:80:80",
    "localhost|localhost",
    "localhost,evil.example",
    "[::1].evil.example",
    "[::1]evil.example",
    "[evil.example]",
    "[::1",
    "<b>.example",
    '"}<img>',
    "a\\u0022.example",
    "$http_authorization.example",
    f"{LONG}.{LONG}.{LONG}.{LONG}",
    "a" * 300,
    "?",
]
MALFORMED = ["", ".", ":3000", "a..example", "a/b", "a b.example"]
"""What nginx itself refuses."""


@pytest.fixture(scope="module")
def reached(gateway: Gateway) -> Iterator[dict[str, Upstream]]:
    """What lies behind the gateway's ports, once it knows its names."""
    gateway.choose(CHOICE)
    (gateway.www / "ready").touch()
    with Upstream(gateway.port("chat_upstream")) as chat, Upstream(gateway.port("api_upstream")) as api:
        yield {"chat": chat, "api": api}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """It resolves the name as the attacker's name server would: to this machine."""
    with chromium.running("--host-resolver-rules=MAP rebind.evil.example 127.0.0.1") as browser:
        yield browser


PATHS = {"chat": "/api/config", "api": "/v1/models"}
both = pytest.mark.parametrize("port", PATHS)


def ask(gateway: Gateway, port: str, *lines: str, target: str = "", version: str = "1.1") -> tuple[int, str, str]:
    """Status, type and body of the answer to a request with these header lines, byte for byte."""
    request = [f"GET {target or PATHS[port]} HTTP/{version}", *lines, "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", gateway.port(port)), 10) as connection:
        connection.sendall("\r\n".join(request).encode())
        with connection.makefile("rb") as file:
            head, _, body = file.read().decode().partition("\r\n\r\n")
    kind = next((line for line in head.splitlines() if line.lower().startswith("content-type:")), ": ")
    return int(head.split()[1]), kind.partition(": ")[2], body


@both
def test_its_own_names_pass(gateway: Gateway, reached: dict[str, Upstream], port: str) -> None:
    for host in OURS:
        assert ask(gateway, port, f"Host: {host}")[0] == 200, host
        assert reached[port].seen[-1].header("Host") == [host]
    # A program that knows no Host, and one that speaks as to a proxy.
    assert ask(gateway, port, version="1.0")[0] == 200
    target = f"http://LocalHost:3000{PATHS[port]}"
    assert ask(gateway, port, "Host: localhost:3000", target=target)[0] == 200


@both
def test_other_names_are_refused_and_told(gateway: Gateway, reached: dict[str, Upstream], port: str) -> None:
    before = len(reached[port].seen)
    for host in STRANGERS:
        for more in ((), (f"Origin: http://{host}",), (f"X-Forwarded-Host: {host}", "X-Forwarded-Host: localhost")):
            status, kind, body = ask(gateway, port, f"Host: {host}", *more)
            assert (status, kind) == (421, "application/json"), host
            told = json.loads(body)
            if port == "api":
                assert {key: told["error"][key] for key in ("type", "param", "code")} == {
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "unknown_host",
                }
            message = told["error"]["message"] if port == "api" else told["detail"]
            assert "Host header" in message and "sudo aisandbox configure --set host_names=" in message
            assert "AISANDBOX_HOST_NAMES" in message
    assert "--set host_names=rebind.evil.example " in ask(gateway, port, "Host: Rebind.evil.example.:80")[2]
    for host in MALFORMED:
        assert ask(gateway, port, f"Host: {host}")[0] == 400, host
    assert len(reached[port].seen) == before


HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(200)
"""The beginning of HTTPS."""


@both
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v1/models HTTP/9.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v1/models%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /../../etc HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: odd\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (HELLO, 400),
    ],
)
def test_what_is_no_request_is_refused_in_the_ports_own_words(
    gateway: Gateway, reached: dict[str, Upstream], port: str, head: bytes, status: int
) -> None:
    before = len(reached[port].seen)
    with socket.create_connection(("127.0.0.1", gateway.port(port)), 10) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            first, _, body = file.read().decode().partition("\r\n\r\n")
    assert first.split()[1] == str(status)
    told = json.loads(body)
    message = told["error"]["message"] if port == "api" else told["detail"]
    assert "request" in message and "nginx" not in body
    assert len(reached[port].seen) == before


@both
def test_one_request_has_one_host(gateway: Gateway, reached: dict[str, Upstream], port: str) -> None:
    before = len(reached[port].seen)
    assert ask(gateway, port, "Host: localhost", "Host: rebind.evil.example")[0] == 400
    assert ask(gateway, port, "Host: rebind.evil.example", "Host: localhost")[0] == 400
    assert ask(gateway, port, "X-None: x")[0] == 400
    evil, own = f"http://rebind.evil.example{PATHS[port]}", f"http://localhost{PATHS[port]}"
    assert ask(gateway, port, "Host: localhost", target=evil)[0] == 421
    assert ask(gateway, port, "Host: rebind.evil.example", target=own)[0] == 421
    assert ask(gateway, port, target=evil, version="1.0")[0] == 421
    assert len(reached[port].seen) == before


@both
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/ready",
        "/aisandbox/status.json",
        "/aisandbox/connect.html",
        "/aisandbox/connect.json",
        "/v1/chat/completions",
        "/x/../y",
    ],
)
def test_no_path_is_an_exception(gateway: Gateway, reached: dict[str, Upstream], port: str, path: str) -> None:
    with httpx.Client(base_url=gateway.url(port), headers={"Host": "rebind.evil.example"}) as client:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            assert client.request(method, path).status_code == 421, (method, path)


ORIGINS = [
    ("ai.example.com:443", "https://ai.example.com", True),
    ("AI.example.com:443", "https://ai.example.com", True),
    ("ai.example.com:80", "http://ai.example.com", True),
    ("ai.example.com", "https://ai.example.com", True),
    ("ai.example.com:8443", "https://ai.example.com:8443", True),
    ("[2001:db8::7]:443", "https://[2001:db8::7]", True),
    ("203.0.113.7:80", "http://203.0.113.7", True),
    ("ai.example.com:443", "http://ai.example.com", False),
    ("ai.example.com:80", "https://ai.example.com", False),
    ("ai.example.com:8443", "https://ai.example.com", False),
    ("ai.example.com:443", "https://ai.example.com:8443", False),
    ("ai.example.com:443", "https://proxy.example.net", False),
    ("ai.example.com:443", "https://evil-ai.example.com", False),
    ("ai.example.com:443", "https://evil.example/ai.example.com", False),
    ("ai.example.com:443", "null", False),
    ("localhost:3000", "http://rebind.evil.example", False),
]


@pytest.mark.parametrize(("host", "origin", "own"), ORIGINS)
def test_pages_of_the_same_name_pass(
    gateway: Gateway, reached: dict[str, Upstream], host: str, origin: str, own: bool
) -> None:
    status, kind, body = ask(gateway, "chat", f"Host: {host}", f"Origin: {origin}")
    assert status == (200 if own else 403)
    if not own:
        assert kind == "application/json"
        assert "Host header" in json.loads(body)["detail"] and "host_names" in json.loads(body)["detail"]


def test_a_person_is_told_in_a_page(gateway: Gateway, reached: dict[str, Upstream]) -> None:
    for host in STRANGERS:
        status, kind, body = ask(gateway, "chat", f"Host: {host}", "Accept: text/html", target="/")
        assert (status, kind) == (421, "text/html; charset=utf-8")
        assert body.startswith("<!doctype html>") and "Host header" in body and "--set host_names=" in body
        assert "NAME" in body or host.lower().partition(":")[0].rstrip(".") in body
        assert not any(piece in body for piece in ("<b>", "<img", "u0022", "$")), host


def test_names_can_be_added_and_taken_back(gateway: Gateway, reached: dict[str, Upstream]) -> None:
    host = "Host: later.example"
    assert ask(gateway, "api", host)[0] == 421
    gateway.choose(Choice(host_names="later.example"))
    assert ask(gateway, "api", host)[0] == 200
    gateway.choose(CHOICE)
    assert ask(gateway, "api", host)[0] == 421


def test_a_page_that_leads_its_name_here_reads_nothing(
    gateway: Gateway, reached: dict[str, Upstream], page: Page
) -> None:
    before = {port: len(upstream.seen) for port, upstream in reached.items()}
    for port, path in PATHS.items():
        seen = page.goto(f"http://rebind.evil.example:{gateway.port(port)}{path}")
        assert seen and seen.status == 421
        read = page.evaluate("path => fetch(path, {method: 'POST', body: '{}'}).then(answer => answer.status)", path)
        assert read == 421
    assert {port: len(upstream.seen) for port, upstream in reached.items()} == before
    page.goto(f"http://rebind.evil.example:{gateway.port('chat')}/")
    expect(page.get_by_role("heading")).to_have_text("This name is not known here")
    expect(page.get_by_text("sudo aisandbox configure --set host_names=rebind.evil.example")).to_be_visible()
