"""What people and programs get before Open WebUI and vLLM are there."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from aisandbox.instance.observe.publisher import for_messages
from tests.gateway.stack import Gateway
from tests.gateway.test_api_port import ALLOWED, call, error, what
from tests.gateway.upstream import ANSWER, Upstream

NEVER = "Fri, 01 Jan 2100 00:00:00 GMT"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def open_webui(gateway: Gateway) -> Iterator[Upstream]:
    with Upstream(gateway.port("chat_upstream")) as upstream:
        yield upstream


@pytest.fixture
def loading(gateway: Gateway) -> Iterator[dict[str, bytes]]:
    """The bodies of the API's 503, as the status publisher writes them, by the end of their names."""
    told = {"message": "Downloading: 42 %", "type": "service_unavailable", "param": None, "code": "model_loading"}
    answer = {"error": {**told, "progress": {"bytes_done": 42}}}
    bodies = {"": json.dumps(answer).encode(), "-messages": json.dumps(for_messages(answer)).encode()}
    for name, body in bodies.items():
        (gateway.www / f"loading{name}.json").write_bytes(body)
    yield bodies
    for name in bodies:
        (gateway.www / f"loading{name}.json").unlink()


def page(gateway: Gateway, path: str = "/", **headers: str) -> httpx.Response:
    return httpx.get(gateway.url("chat", path), headers={**BROWSER, **headers})


def is_progress_page(response: httpx.Response) -> bool:
    return response.status_code == 503 and "is starting</title>" in response.text


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_api_asks_to_come_back(gateway: Gateway, method: str, path: str) -> None:
    response = call(gateway, method, path, json={} if method == "POST" else None)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert what(response) == ("overloaded_error" if "messages" in path else "model_loading")


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_api_tells_the_progress(gateway: Gateway, loading: dict[str, bytes], method: str, path: str) -> None:
    response = call(gateway, method, path, json={} if method == "POST" else None)
    assert (response.status_code, response.content) == (503, loading["-messages" if "messages" in path else ""])
    assert response.headers["Content-Type"] == "application/json"
    assert (response.headers["Retry-After"], response.headers["Cache-Control"]) == ("5", "no-store")


@pytest.mark.parametrize("headers", [{"Range": "bytes=0-3"}, {"If-None-Match": "*"}, {"If-Modified-Since": NEVER}])
def test_the_progress_comes_whole(gateway: Gateway, loading: dict[str, bytes], headers: dict[str, str]) -> None:
    response = call(gateway, "GET", "/v1/models", headers=headers)
    assert (response.status_code, response.content) == (503, loading[""])


@pytest.mark.parametrize("name", ["loading", "loading-messages"])
def test_the_progress_is_no_route_of_its_own(gateway: Gateway, loading: dict[str, bytes], name: str) -> None:
    assert call(gateway, "GET", f"/aisandbox/{name}.json").status_code == 404


def test_alive_is_not_ready(gateway: Gateway) -> None:
    health = call(gateway, "GET", "/health")
    assert (health.status_code, health.json()) == (200, {"status": "loading"})
    assert call(gateway, "GET", "/ready").status_code == 503


def test_a_model_server_that_is_unwell_is_not_ready(gateway: Gateway) -> None:
    class Unwell(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503, "engine is dead")

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", gateway.port("api_upstream")), Unwell) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        response = call(gateway, "GET", "/ready")
        server.shutdown()
    assert (response.status_code, error(response)["code"]) == (503, "model_loading")


def test_official_clients_wait_until_it_answers(gateway: Gateway) -> None:
    """The request is sent before the model serves; the client's own retries carry it through."""
    client = openai.OpenAI(base_url=gateway.url("api", "/v1"), api_key="none")
    vllm = Upstream(gateway.port("api_upstream"))
    start = threading.Timer(2, vllm.__enter__)
    start.start()
    try:
        answer = client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hello"}])
    finally:
        start.join()
        vllm.__exit__()
    assert answer.choices[0].message.content == ANSWER


def test_api_refuses_unknown_routes_as_ever(gateway: Gateway) -> None:
    assert call(gateway, "GET", "/metrics").status_code == 404


@pytest.mark.parametrize("path", ["/", "/c/some-chat", "/?q=hello"])
def test_people_see_the_progress_page(gateway: Gateway, path: str) -> None:
    response = page(gateway, path)
    assert is_progress_page(response)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("path", ["/", "/api/config", "/ws/socket.io/", "/health"])
def test_programs_get_a_short_answer(gateway: Gateway, path: str) -> None:
    response = httpx.get(gateway.url("chat", path))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "starting" in response.json()["detail"]


def test_the_page_needs_nothing_from_elsewhere(gateway: Gateway) -> None:
    text = page(gateway).text
    assert "https://" not in text and "src=" not in text
    assert "http://" not in text.replace("http://${host}", "")


def test_status_is_served_and_never_kept(gateway: Gateway) -> None:
    path = "/aisandbox/status.json"
    assert httpx.get(gateway.url("chat", path)).status_code == 404
    (gateway.www / "status.json").write_text(json.dumps({"phases": []}))
    response = httpx.get(gateway.url("chat", path))
    assert response.json() == {"phases": []}
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/aisandbox/../resolved.json", "/aisandbox/%2e%2e/resolved.json", "/aisandbox/resolved.json"]
)
def test_nothing_else_of_that_folder_is(gateway: Gateway, path: str) -> None:
    (gateway.www.parent / "resolved.json").write_text("secret")
    (gateway.www / "resolved.json").write_text("secret")
    assert "secret" not in httpx.get(httpx.URL(gateway.url("chat"), raw_path=path.encode())).text


def test_page_waits_for_the_model(gateway: Gateway, open_webui: Upstream) -> None:
    assert is_progress_page(page(gateway))
    # The chat's own requests pass, and so does everything once the visitor wants the chat.
    assert httpx.get(gateway.url("chat", "/api/config")).status_code == 200
    onward = page(gateway, "/aisandbox/chat")
    assert (onward.status_code, onward.headers["Location"]) == (302, gateway.url("chat", "/"))
    assert page(gateway, Cookie=onward.headers["Set-Cookie"].split(";")[0]).status_code == 200


def test_page_gives_way_to_the_chat(gateway: Gateway, open_webui: Upstream, ready: Path) -> None:
    assert page(gateway).json()["path"] == "/"
    ready.unlink()
    assert is_progress_page(page(gateway))
