"""The chat port in front of an upstream that tells what reached it: identities, origins, closed doors, uploads."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from aisandbox.instance.choose.options import Choice
from tests.gateway.installation import NARROWED
from tests.gateway.stack import Gateway
from tests.gateway.upstream import Upstream

VISITOR = "visitor@aisandbox.invalid"


@pytest.fixture(scope="module")
def open_webui(gateway: Gateway) -> Iterator[Upstream]:
    (gateway.www / "ready").touch()
    with Upstream(gateway.port("chat_upstream")) as upstream:
        yield upstream


@pytest.mark.parametrize(
    "spelling",
    ["X-Aisandbox-Visitor", "x-aisandbox-visitor", "X_Aisandbox_Visitor", "X-Aisandbox_Visitor", "X-AISANDBOX-VISITOR"],
)
def test_clients_cannot_name_themselves(gateway: Gateway, open_webui: Upstream, spelling: str) -> None:
    headers = [(spelling, "administrator@aisandbox.invalid"), (spelling, "another"), (f"{spelling}-Name", "Boss")]
    httpx.get(gateway.url("chat", "/api/config"), headers=headers)
    arrived = [(name.lower().replace("_", "-"), value) for name, value in open_webui.seen[-1].headers]
    assert [value for name, value in arrived if name == "x-aisandbox-visitor"] == [VISITOR]
    assert [value for name, value in arrived if name == "x-aisandbox-visitor-name"] == ["Visitor"]


@pytest.mark.parametrize(
    "smuggled",
    [
        "X-Aisandbox-Visitor : administrator@aisandbox.invalid",
        " X-Aisandbox-Visitor: administrator@aisandbox.invalid",
        "X-Other: a\n\tb\nX-Aisandbox-Visitor: administrator@aisandbox.invalid",
        "Connection: X-Aisandbox-Visitor\r\nX-Aisandbox-Visitor: administrator@aisandbox.invalid",
    ],
)
def test_nor_with_odd_spelling(gateway: Gateway, open_webui: Upstream, smuggled: str) -> None:
    before = len(open_webui.seen)
    with socket.create_connection(("127.0.0.1", gateway.port("chat"))) as connection:
        request = f"GET /api/config HTTP/1.1\r\nHost: here\r\n{smuggled}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        while connection.recv(65536):
            pass
    for seen in open_webui.seen[before:]:
        assert seen.header("X-Aisandbox-Visitor") == [VISITOR]
        assert not any("administrator" in value for _, value in seen.headers)


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:1", "http://evil-127.0.0.1"])
@pytest.mark.parametrize("path", ["/api/v1/chats/new", "/ws/socket.io/"])
def test_pages_of_other_origins_are_refused(gateway: Gateway, open_webui: Upstream, origin: str, path: str) -> None:
    before = len(open_webui.seen)
    assert httpx.post(gateway.url("chat", path), headers={"Origin": origin}).status_code == 403
    assert len(open_webui.seen) == before


def test_own_origin_passes(gateway: Gateway, open_webui: Upstream) -> None:
    response = httpx.post(gateway.url("chat", "/api/v1/chats/new"), headers={"Origin": gateway.url("chat")})
    assert response.status_code == 200
    assert open_webui.seen[-1].header("Origin") == []


def test_addresses_are_the_gateways_to_tell(gateway: Gateway, open_webui: Upstream) -> None:
    httpx.get(gateway.url("chat", "/api/config"), headers={"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "https"})
    assert open_webui.seen[-1].header("X-Forwarded-For") == ["127.0.0.1"]
    assert open_webui.seen[-1].header("X-Forwarded-Proto") == ["http"]


def test_websockets_are_upgraded(gateway: Gateway, open_webui: Upstream) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    httpx.get(gateway.url("chat", "/ws/socket.io/"), headers=headers)
    assert open_webui.seen[-1].header("Upgrade") == ["websocket"]
    assert open_webui.seen[-1].header("Connection") == ["upgrade"]


@pytest.mark.parametrize("port", ["chat", "api"])
def test_a_wish_for_http2_in_clear_text_changes_nothing(gateway: Gateway, open_webui: Upstream, port: str) -> None:
    """As Java's client and others ask with their first request."""
    settings = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    with Upstream(gateway.port("api_upstream")) as vllm:
        answer = httpx.post(gateway.url(port, "/v1/completions"), content=b"x" * 1000, headers=settings)
        assert (answer.status_code, answer.json()["length"]) == (200, 1000)
        seen = (open_webui if port == "chat" else vllm).seen[-1]
    assert seen.header("Upgrade") == [] and "upgrade" not in seen.header("Connection")


def test_head_has_the_status_of_get(gateway: Gateway, open_webui: Upstream) -> None:
    for path in ("/", "/health", "/api/config"):
        answer = httpx.head(gateway.url("chat", path), headers={"Accept": "text/html"})
        assert (answer.status_code, answer.content) == (200, b"")
        assert open_webui.seen[-1].method == "GET"


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/api/v1/files/", 64),
        ("/api/v1/audio/transcriptions", 64),
        ("/api/v1/terminals/sandbox/files/upload", 64),
        ("/api/v1/chats/new", 32),
        ("/api/chat/completions", 32),
        ("/openai/chat/completions", 32),
        ("/api/v1/auths/signin", 1),
        ("/ws/socket.io/", 4),
    ],
)
def test_bodies_are_bounded(gateway: Gateway, open_webui: Upstream, path: str, most: int) -> None:
    """Refused by the size that they announce, before any of it has come."""
    before = len(open_webui.seen)
    with socket.create_connection(("127.0.0.1", gateway.port("chat"))) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {(most << 20) + 1}\r\n\r\n".encode())
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"application/json" in answer and b"larger than the chat page accepts" in answer
    assert len(open_webui.seen) == before


@pytest.mark.parametrize(("path", "most"), [("/api/v1/files/", 64), ("/api/v1/chats/new", 32)])
def test_big_ones_pass_up_to_there(gateway: Gateway, open_webui: Upstream, path: str, most: int) -> None:
    url, body = gateway.url("chat", path), b"x" * (most << 20)
    assert httpx.post(url, content=body, timeout=30).json()["length"] == len(body)
    piecemeal = (body[: 1 << 20] for _ in range(most + 1))
    assert httpx.post(url, content=piecemeal, timeout=30).status_code == 413


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/users/user/settings/update"),
        ("POST", "/api/v1/users/user//settings/%75pdate/"),
        ("POST", "/api/v1/users/user/info/update"),
        ("POST", "/api/v1/users/user/variables/update"),
        ("POST", "/api/v1/users/user/status/update"),
        ("POST", "/api/v1/auths/update/profile"),
        ("POST", "/api/v1/chats/archive/all"),
        ("DELETE", "/api/v1/chats/"),
    ],
)
def test_what_all_share_is_fixed_while_anybody_may_come(
    gateway: Gateway, open_webui: Upstream, method: str, path: str
) -> None:
    before = len(open_webui.seen)
    refused = httpx.request(method, gateway.url("chat", path))
    assert refused.status_code == 403
    assert "open to everyone" in refused.json()["detail"]
    assert len(open_webui.seen) == before


def test_but_not_what_belongs_to_one_chat_nor_behind_a_guard(gateway: Gateway, open_webui: Upstream) -> None:
    assert httpx.delete(gateway.url("chat", "/api/v1/chats/one")).status_code == 200
    for choice in (NARROWED, Choice.model_validate({"chat_password": "a-long-password"})):
        gateway.choose(choice)
        assert httpx.post(gateway.url("chat", "/api/v1/users/user/settings/update")).status_code == 200
    gateway.choose(Choice())


def test_uploads_of_one_address_at_a_time_are_bounded(gateway: Gateway, open_webui: Upstream) -> None:
    head = "POST /api/v1/files/ HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n"
    with ExitStack() as stack:
        address = ("127.0.0.1", gateway.port("chat"))
        begun = [stack.enter_context(socket.create_connection(address)) for _ in range(10)]
        for connection in begun:
            connection.sendall(head.encode())
        # The gateway takes connections in turn, but not always in one worker.
        while (answer := httpx.post(gateway.url("chat", "/api/v1/files/"), content=b"x")).status_code == 200:
            pass
        assert (answer.status_code, "files can be uploaded together" in answer.json()["detail"]) == (429, True)
        assert httpx.get(gateway.url("chat", "/api/v1/files/")).status_code == 200
        for connection in begun:
            connection.sendall(b"x" * 9)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_signing_in_is_slowed_down(gateway: Gateway, open_webui: Upstream) -> None:
    url = gateway.url("chat", "/api/v1/auths/signin")
    with httpx.Client() as client:
        statuses = {client.post(url, json={}).status_code for _ in range(80)}
    assert statuses == {200, 429}


def test_security_headers(gateway: Gateway, open_webui: Upstream) -> None:
    headers = httpx.get(gateway.url("chat", "/")).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Server"] == "nginx"


def test_prompts_in_addresses_are_not_logged(gateway: Gateway, open_webui: Upstream) -> None:
    httpx.get(gateway.url("chat", "/"), params={"q": "secret-prompt"})
    assert "secret" not in gateway.log()


def test_errors_keep_prompts_out_of_the_log(gateway: Gateway, tmp_path: Path) -> None:
    httpx.get(gateway.url("api", "/v1/models"), params={"q": "secret-prompt"})
    assert "secret" not in gateway.log()
