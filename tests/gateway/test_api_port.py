"""The API port: which routes pass, what refusals look like, and that streams stream."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.gateway.stack import Gateway
from tests.gateway.upstream import ANSWER, Upstream

ALLOWED = [
    ("GET", "/ready"),
    ("GET", "/version"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/organisation/name"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/resp_1"),
    ("POST", "/v1/responses/resp_1/cancel"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
]

# Routes of vLLM that would give away, change or stop something, and tricks to reach them.
CLOSED = [
    "/",
    "/invocations",
    "/tokenize",
    "/detokenize",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/load",
    "/ping",
    "/scale_elastic_ep",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/sleep",
    "/pause",
    "/server_info",
    "/inference/v1/generate",
    "/v1/load_lora_adapter",
    "/v1/chat/completions/render",
    "/v1/chat/completions/batch",
    "/v1/messages/render",
    "/v1/messages/batches",
    "/v1/models/../../tokenize",
    "/v1/models/%2e%2e/%2e%2e/metrics",
    "/v1/models/..%2f..%2fmetrics",
    "//metrics",
    "/health/",
    f"/v1/responses/{'0' * 257}",
    f"/v1/responses/{'0' * 257}/cancel",
    f"/v1/models/{'m' * 257}",
    "/x.html",
    "/progress.html",
    "/v1/x.js",
]


@pytest.fixture(scope="module")
def vllm(gateway: Gateway) -> Iterator[Upstream]:
    with Upstream(gateway.port("api_upstream")) as upstream:
        yield upstream


def call(gateway: Gateway, method: str, path: str, **options: object) -> httpx.Response:
    url = httpx.URL(gateway.url("api"), raw_path=path.encode())
    return httpx.request(method, url, **options)  # type: ignore[arg-type]


def error(response: httpx.Response) -> dict[str, object]:
    """The error in a response, which must have exactly the shape of OpenAI's, or of Anthropic's in its API."""
    assert response.headers["Content-Type"] == "application/json"
    data = response.json()
    fields: dict[str, object] = data["error"]
    if response.url.path.startswith("/v1/messages"):
        assert list(data) == ["type", "error"] and data["type"] == "error" and set(fields) == {"type", "message"}
    else:
        assert list(data) == ["error"] and set(fields) == {"message", "type", "param", "code"}
    return fields


def what(response: httpx.Response) -> object:
    """What is wrong, in the word that programs read: OpenAI's `code`, Anthropic's `type`."""
    return error(response).get("code") or error(response)["type"]


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_allowed_routes_pass(gateway: Gateway, vllm: Upstream, method: str, path: str) -> None:
    assert call(gateway, method, path, json={} if method == "POST" else None).status_code == 200
    arrived = vllm.seen[-1]
    assert (arrived.method, arrived.path) == (method, "/health" if path == "/ready" else path)


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_everything_else_is_unknown(gateway: Gateway, vllm: Upstream, method: str, path: str) -> None:
    before = len(vllm.seen)
    response = call(gateway, method, path)
    assert response.status_code == 404
    assert what(response) == ("not_found_error" if path.startswith("/v1/messages") else "unknown_url")
    assert len(vllm.seen) == before


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("POST", "/v1/models", "GET"), ("GET", "/v1/chat/completions", "POST"), ("DELETE", "/v1/responses/resp_1", "GET")],
)
def test_wrong_method(gateway: Gateway, vllm: Upstream, method: str, path: str, allow: str) -> None:
    response = call(gateway, method, path)
    assert response.status_code == 405
    assert response.headers["Allow"] == allow
    assert error(response)["code"] == "method_not_supported"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages?beta=true"])
def test_refusals_of_messages_are_shaped_as_anthropics(gateway: Gateway, vllm: Upstream, path: str) -> None:
    refused = {
        "invalid_request_error": (405, call(gateway, "GET", path)),
        "request_too_large": (413, call(gateway, "POST", path, content=b"x" * (64 << 20) + b"x")),
    }
    assert {kind: (response.status_code, error(response)["type"]) for kind, (_, response) in refused.items()} == {
        kind: (status, kind) for kind, (status, _) in refused.items()
    }
    long = call(gateway, "POST", path, headers={"X-Long": "x" * 9000})
    stranger = call(gateway, "POST", path, headers={"Host": "elsewhere.example.com"})
    assert [(long.status_code, what(long)), (stranger.status_code, what(stranger))] == [
        (400, "invalid_request_error"),
        (421, "invalid_request_error"),
    ]


def test_long_headers(gateway: Gateway, vllm: Upstream) -> None:
    response = call(gateway, "GET", "/v1/models", headers={"X-Long": "x" * 9000})
    assert response.status_code == 400
    assert error(response)["code"] == "headers_too_large"


def test_other_web_pages_may_not_call_it(gateway: Gateway, vllm: Upstream) -> None:
    origin = {"Origin": "https://elsewhere.example"}
    assert call(gateway, "OPTIONS", "/v1/chat/completions", headers=origin).status_code == 405
    assert "access-control-allow-origin" not in call(gateway, "GET", "/v1/models", headers=origin).headers


def test_large_requests_pass_and_keys_stay_here(gateway: Gateway, vllm: Upstream) -> None:
    body = b"x" * (8 << 20)
    headers = {"Authorization": "Bearer sk-secret", "x-api-key": "sk-secret"}
    assert call(gateway, "POST", "/v1/completions", content=body, headers=headers).json()["length"] == len(body)
    assert vllm.seen[-1].header("Authorization") == vllm.seen[-1].header("x-api-key") == []


@pytest.mark.parametrize(("sent", "arrives"), [("r" * 256, ["r" * 256]), ("r" * 257, []), ("two words", [])])
def test_an_id_that_would_fill_the_journal_is_dropped(
    gateway: Gateway, vllm: Upstream, sent: str, arrives: list[str]
) -> None:
    call(gateway, "GET", "/v1/models", headers={"X-Request-Id": sent})
    assert vllm.seen[-1].header("X-Request-Id") == arrives


def test_health_is_the_gateways_own(gateway: Gateway, vllm: Upstream, ready: Path) -> None:
    before = len(vllm.seen)
    health = call(gateway, "GET", "/health")
    assert (health.status_code, health.json()) == (200, {"status": "ready"})
    assert call(gateway, "HEAD", "/health").status_code == 200
    assert len(vllm.seen) == before


@pytest.mark.parametrize("path", ["/ready", "/version", "/v1/models"])
def test_head_has_the_status_of_get(gateway: Gateway, vllm: Upstream, path: str) -> None:
    answer = call(gateway, "HEAD", path)
    assert (answer.status_code, answer.content, vllm.seen[-1].method) == (200, b"", "GET")


def test_too_large(gateway: Gateway, vllm: Upstream) -> None:
    response = call(gateway, "POST", "/v1/completions", content=b"x" * (64 << 20) + b"x")
    assert response.status_code == 413
    assert error(response)["code"] == "request_too_large"


def test_one_address_leaves_room_for_the_others(gateway: Gateway, vllm: Upstream) -> None:
    """One address that holds a thousand slow requests gets 429 for the next; other addresses are served."""
    target = ("127.0.0.1", gateway.port("api"))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    with ExitStack() as stack:

        def slow() -> socket.socket:
            connection = stack.enter_context(socket.create_connection(target, 60, ("127.0.0.2", 0)))
            connection.sendall(head)
            return connection

        for _ in range(1000):
            slow()
        # On a busy host the kernel's queue may have lost some of them: the first one too many is answered.
        reply = b""
        for _ in range(50):
            refusal = slow()
            refusal.settimeout(5)
            with suppress(TimeoutError, ConnectionResetError):
                while b"too_many_connections" not in reply and (piece := refusal.recv(4096)):
                    reply += piece
                break
        assert b"too_many_connections" in reply
        assert reply.startswith(b"HTTP/1.1 429 ") and b"\r\nRetry-After: 5\r\n" in reply
        for source in ("127.0.0.1", "127.0.0.3"):
            with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=60) as client:
                assert client.get(gateway.url("api", "/v1/models")).status_code == 200


def test_streams_arrive_piece_by_piece(gateway: Gateway, vllm: Upstream) -> None:
    url = gateway.url("api", "/v1/chat/completions")
    arrivals = []
    with httpx.stream("POST", url, json={"stream": True, "messages": []}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                arrivals.append(time.monotonic())
    assert len(arrivals) == len(ANSWER.split(" ")) + 1
    gaps = [later - earlier for earlier, later in pairwise(arrivals[:-1])]
    assert min(gaps) > vllm.pause / 4


def test_nothing_private_is_logged(gateway: Gateway, vllm: Upstream) -> None:
    secrets = {
        "params": {"q": "secret-query"},
        "json": {"prompt": "secret-prompt"},
        "headers": {"Authorization": "secret-key"},
    }
    call(gateway, "POST", "/v1/completions", **secrets)
    log = gateway.log()
    assert "POST /v1/completions" in log
    assert "secret" not in log


def test_no_version_is_told(gateway: Gateway, vllm: Upstream) -> None:
    assert call(gateway, "GET", "/v1/models").headers["Server"] == "nginx"
