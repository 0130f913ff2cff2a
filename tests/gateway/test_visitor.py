"""What a visitor of the real chat page may not do: become somebody else, run code on the host, or send it places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.installation import OpenWebUI
from tests.gateway.stack import Gateway
from tests.gateway.upstream import MODEL, Upstream

ADMIN = "administrator@aisandbox.invalid"
HEADER = "X-Aisandbox-Visitor"
PLUGIN = "import pathlib\npathlib.Path({marker!r}).touch()\nclass {kind}:\n    pass\n"


@pytest.fixture(scope="module")
def gateway(chat: OpenWebUI) -> Gateway:
    return chat.gateway


def sign_in(gateway: Gateway, password: str = "", email: str = "", claim: str = HEADER) -> dict[str, Any]:
    """Sign in through the gateway, claiming to be the administrator in a header."""
    form = {"email": email, "password": password}
    response = httpx.post(gateway.url("chat", "/api/v1/auths/signin"), json=form, headers={claim: ADMIN})
    assert response.status_code == 200, response.text
    session: dict[str, Any] = response.json()
    return session


@pytest.fixture(scope="module")
def visitor(gateway: Gateway, chat: OpenWebUI) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {sign_in(gateway)['token']}"}
    with httpx.Client(base_url=gateway.url("chat"), headers=headers, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def routes(chat: OpenWebUI) -> list[tuple[str, str, bool]]:
    return chat.routes()


def test_a_visitor_is_a_plain_user(gateway: Gateway, chat: OpenWebUI) -> None:
    session = sign_in(gateway)
    assert (session["role"], session["email"], session["name"]) == ("user", "visitor@aisandbox.invalid", "Visitor")


def test_a_claimed_identity_is_ignored(gateway: Gateway, chat: OpenWebUI) -> None:
    assert sign_in(gateway, claim=HEADER.replace("-", "_"))["role"] == "user"


def test_not_even_the_right_password_makes_an_administrator(gateway: Gateway, chat: OpenWebUI) -> None:
    assert sign_in(gateway, password=chat.admin_password, email=ADMIN)["role"] == "user"


def test_nor_does_a_stolen_session(gateway: Gateway, chat: OpenWebUI) -> None:
    url = gateway.url("chat_upstream", "/api/v1/auths/signin")
    session = httpx.post(url, json={"email": "", "password": ""}, headers={HEADER: ADMIN}).json()
    assert session["role"] == "admin"
    for headers in ({"Authorization": f"Bearer {session['token']}"}, {"Cookie": f"token={session['token']}"}):
        for path in ("/api/v1/auths/", "/api/v1/users/", "/api/v1/configs/export"):
            assert httpx.get(gateway.url("chat", path), headers=headers).status_code == 401, path


def test_signing_up_is_closed(gateway: Gateway, chat: OpenWebUI) -> None:
    form = {"name": "n", "email": "a@b.example", "password": "long-enough-1A!"}
    assert httpx.post(gateway.url("chat", "/api/v1/auths/signup"), json=form).status_code == 403
    direct = httpx.post(gateway.url("chat_upstream", "/api/v1/auths/signup"), json=form)
    assert direct.status_code == 403


def test_every_door_of_the_administrator_is_shut(visitor: httpx.Client, routes: list[tuple[str, str, bool]]) -> None:
    doors = [(method, re.sub(r"{.*?}", "0", path)) for method, path, admin in routes if admin]
    assert len(doors) > 150
    answers = {f"{method} {path}": visitor.request(method, path, json={}).status_code for method, path in doors}
    assert {door: status for door, status in answers.items() if status not in (401, 403)} == {}


def test_nothing_names_the_administrator(visitor: httpx.Client, routes: list[tuple[str, str, bool]]) -> None:
    """Searching for people, above all."""
    paths = {re.sub(r"{.*?}", "0", path) for method, path, admin in routes if method == "GET" and not admin}
    paths |= {f"/api/v1/users/search{query}" for query in ("", "/", "?query=admin", "?order_by=role&direction=asc")}
    answers = {path: visitor.get(path).text for path in sorted(paths)}
    assert len(answers) > 150
    assert [path for path, text in answers.items() if "administrator@" in text.lower()] == []
    assert visitor.get("/api/v1/users/search").status_code == 403


@pytest.mark.parametrize("kind", ["functions", "tools"])
@pytest.mark.parametrize("port", ["chat", "chat_upstream"])
def test_code_cannot_be_brought(gateway: Gateway, visitor: httpx.Client, tmp_path: Path, kind: str, port: str) -> None:
    """Through the gateway, and past it as far as Open WebUI's own checks go."""
    marker = tmp_path / "ran"
    content = PLUGIN.format(marker=str(marker), kind="Tools" if kind == "tools" else "Pipe")
    form = {"id": "x", "name": "x", "content": content, "meta": {"description": "x"}}
    for path in (f"/api/v1/{kind}/create", f"/api/v1/{kind}/id/x/update"):
        response = visitor.post(gateway.url(port, path), json=form, headers={HEADER: "visitor@aisandbox.invalid"})
        assert response.status_code in (400, 401, 403), response.text
    assert not marker.exists()


def test_the_administrator_cannot_bring_code_either(gateway: Gateway, chat: OpenWebUI, tmp_path: Path) -> None:
    """So that whoever gets past every wall to Open WebUI itself still runs nothing."""
    marker = tmp_path / "ran"
    with httpx.Client(base_url=gateway.url("chat_upstream"), headers={HEADER: ADMIN}) as admin:
        token = admin.post("/api/v1/auths/signin", json={"email": "", "password": ""}).json()["token"]
        for kind, name in (("functions", "Pipe"), ("tools", "Tools")):
            form = {"id": "x", "name": "x", "content": PLUGIN.format(marker=str(marker), kind=name), "meta": {}}
            response = admin.post(f"/api/v1/{kind}/create", json=form, headers={"Authorization": f"Bearer {token}"})
            assert response.status_code == 400, response.text
    assert not marker.exists()


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/api/v1/utils/code/execute", {"code": "print(1)"}),
        ("/api/v1/pipelines/upload", {"urlIdx": 0}),
        ("/api/v1/configs/import", {"config": {}}),
        ("/api/v1/configs/tool_servers", {"TOOL_SERVER_CONNECTIONS": []}),
        ("/api/v1/skills/create", {"id": "x", "name": "x", "content": "x"}),
        ("/api/v1/models/create", {"id": "x", "name": "x", "meta": {}, "params": {}}),
        ("/api/v1/models/import", {"models": []}),
        ("/api/v1/prompts/create", {"command": "x", "name": "x", "content": "x"}),
        (
            "/api/v1/automations/create",
            {"name": "x", "data": {"prompt": "x", "model_id": MODEL, "rrule": "FREQ=DAILY"}},
        ),
        ("/api/v1/auths/api_key", {}),
        ("/api/v1/auths/update/password", {"password": "x", "new_password": "long-enough-1A!"}),
    ],
)
def test_powers_a_visitor_lacks(visitor: httpx.Client, path: str, form: dict[str, Any]) -> None:
    response = visitor.post(path, json=form)
    assert response.status_code in (400, 401, 403), response.text


def test_the_host_fetches_no_address_for_a_visitor(gateway: Gateway, visitor: httpx.Client, chat: OpenWebUI) -> None:
    """Every route that takes an address, or a model or engine that lives at one."""
    with Upstream(8299) as elsewhere:
        url = f"http://127.0.0.1:{elsewhere.port}/fetched"
        servers = {"toolServers": [{"url": url}], "directConnections": {"OPENAI_API_BASE_URLS": [url]}}
        message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        for path, form in {
            "/api/v1/retrieval/process/web": {"url": url},
            "/api/v1/retrieval/process/url": {"url": url},
            "/api/v1/retrieval/process/youtube": {"url": url},
            "/api/v1/retrieval/process/web/search": {"queries": ["x"]},
            "/api/v1/images/generations": {"prompt": url},
            "/api/v1/images/edit": {"prompt": "x", "image": url},
            "/api/v1/audio/speech": {"input": url},
            "/api/v1/notifications/targets": {"type": "webhook", "name": "x", "config": {"url": url}},
            "/api/v1/channels/create": {"name": "x"},
            "/api/v1/users/user/settings/update": {"ui": {**servers, "notifications": {"webhook_url": url}}},
            "/api/v1/auths/update/profile": {"name": "Visitor", "profile_image_url": url},
            "/api/chat/completions": {"model": MODEL, "messages": [message], "tool_servers": [{"url": url}]},
            "/openai/verify": {"url": url, "key": ""},
            "/ollama/verify": {"url": url, "key": ""},
        }.items():
            visitor.post(path, json=form)
        for path in ("/openai/models/7", "/ollama/api/tags", "/api/v1/terminals/x/y", "/api/v1/utils/gravatar"):
            visitor.get(path, params={"email": url})
        assert elsewhere.seen == []
    assert chat.peers() <= chat.neighbours


def test_no_connection_but_to_model_and_sandbox(visitor: httpx.Client, chat: OpenWebUI) -> None:
    form = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    assert visitor.post("/api/chat/completions", json=form).status_code == 200
    assert chat.peers() == chat.neighbours


def test_signing_up_stays_closed_after_a_restart(gateway: Gateway, chat: OpenWebUI) -> None:
    chat.stop()
    chat.start()
    test_signing_up_is_closed(gateway, chat)
    test_a_visitor_is_a_plain_user(gateway, chat)
