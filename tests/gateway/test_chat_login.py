"""The login of the chat page on real Open WebUI: switched on, changed and off again, with the history kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from aisandbox.instance.options import Choice
from aisandbox.manifest import load
from tests.gateway.installation import OpenWebUI
from tests.gateway.stack import Gateway, running_gateway
from tests.gateway.upstream import ANSWER, Upstream
from tests.support import chromium

EMAIL = "Ada@Example.com"
PASSWORD = "pass\"word\\with$odd`signs'"
NEW_PASSWORD = "another-password"
OPEN = Choice()
LOGIN = Choice.model_validate({"chat_email": EMAIL, "chat_password": PASSWORD, "sandbox": "off"})
CHANGED = Choice.model_validate({"chat_password": NEW_PASSWORD, "sandbox": "off"})
HEADERS = {"X-Aisandbox-Visitor": "visitor@aisandbox.invalid", "X-Aisandbox-Visitor-Name": "Visitor"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenWebUI]:
    """Open WebUI that is open at first; the tests of this module change it one after the other."""
    with (
        running_gateway(tmp_path_factory.mktemp("login")) as gateway,
        Upstream(gateway.port("api_upstream")) as vllm,
        OpenWebUI(gateway, vllm, choice=OPEN, watched=False) as open_webui,
    ):
        (gateway.www / "ready").touch()
        yield open_webui


def sign_in(gateway: Gateway, email: str, password: str, port: str = "chat", **headers: str) -> httpx.Response:
    form = {"email": email, "password": password}
    return httpx.post(gateway.url(port, "/api/v1/auths/signin"), json=form, headers=headers, timeout=30)


def chats(gateway: Gateway, token: str, **headers: str) -> httpx.Response:
    authorization = {"Authorization": f"Bearer {token}", **headers}
    return httpx.get(gateway.url("chat", "/api/v1/chats/?page=1"), headers=authorization, timeout=30)


def terminals(gateway: Gateway, token: str) -> list[dict[str, Any]]:
    """The sandboxes that the chat page offers."""
    authorization = {"Authorization": f"Bearer {token}"}
    found: list[dict[str, Any]] = httpx.get(gateway.url("chat", "/api/v1/terminals/"), headers=authorization).json()
    return found


def vllm_request(installation: OpenWebUI) -> dict[str, Any]:
    """What the model server was asked last."""
    return installation.vllm.chats()[-1]


def session(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()
    return data


def fill_in(page: Page, email: str, password: str) -> None:
    page.get_by_role("textbox", name="Email").fill(email)
    page.get_by_role("textbox", name="Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_history_from_open_to_login_and_back(page: Page, installation: OpenWebUI) -> None:
    gateway = installation.gateway
    # Open: a visitor chats, and keeps the session.
    chromium.open_chat(page, gateway.url("chat"))
    chromium.send(page, "Remember the word marmalade")
    expect(page.get_by_text(ANSWER)).to_be_visible()
    place = page.url
    visitor = session(sign_in(gateway, "", ""))["token"]
    assert len(chats(gateway, visitor).json()) == 1
    # An open chat is not an open shell, and says so.
    warnings = page.get_by_role("listitem").filter(has_text="open to everyone who can reach port")
    expect(warnings).to_have_count(2)
    expect(warnings.first).to_contain_text("has none of the sandbox's terminal, files and tools")
    expect(warnings.first).to_contain_text("sudo aisandbox configure --chat-password -")
    assert terminals(gateway, visitor) == []
    assert "tools" not in vllm_request(installation)
    page.screenshot(path=gateway.folder / "banner.png")

    installation.choose(LOGIN)
    # Whoever chatted without a password must now sign in, whatever they claim.
    assert chats(gateway, visitor).status_code == 401
    assert chats(gateway, visitor, **HEADERS).status_code == 401
    assert sign_in(gateway, "", "", **HEADERS).status_code == 400
    assert httpx.get(gateway.url("chat", "/api/models")).status_code == 401
    page.goto(place)
    fill_in(page, EMAIL, "not-the-password")
    expect(page.get_by_text("The email or password provided is incorrect")).to_be_visible()
    page.screenshot(path=gateway.folder / "login.png")
    fill_in(page, EMAIL, PASSWORD)
    expect(page.locator("#chat-input")).to_be_visible()
    page.goto(place)
    expect(page.get_by_text(ANSWER)).to_be_visible()
    # What is said after signing in joins the same history.
    page.goto(gateway.url("chat"))
    chromium.send(page, "Remember the word quince")
    expect(page.get_by_text(ANSWER)).to_be_visible()
    signed_in = session(sign_in(gateway, EMAIL, PASSWORD))
    assert (signed_in["role"], signed_in["email"]) == ("user", EMAIL.lower())

    # Another password, and the default address: the old ones are worth nothing any more, nor are their sessions.
    installation.choose(CHANGED)
    assert chats(gateway, signed_in["token"]).status_code == 401
    assert sign_in(gateway, EMAIL, PASSWORD).status_code == 400
    default = str(load().options_by_key["chat_email"].default)
    changed = session(sign_in(gateway, default, NEW_PASSWORD))
    assert len(chats(gateway, changed["token"]).json()) == 2

    installation.choose(OPEN)
    assert len(chats(gateway, session(sign_in(gateway, "", ""))["token"]).json()) == 2
    page.goto(place)
    expect(page.get_by_text(ANSWER)).to_be_visible()


def test_a_new_instance_with_a_login(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        running_gateway(tmp_path_factory.mktemp("fresh")) as gateway,
        Upstream(gateway.port("api_upstream")) as vllm,
    ):
        gateway.choose(CHANGED)
        with OpenWebUI(gateway, vllm, choice=CHANGED, watched=False) as open_webui:
            default = str(load().options_by_key["chat_email"].default)
            person = session(sign_in(gateway, default, NEW_PASSWORD))
            assert person["role"] == "user"
            administrator = open_webui.settings["WEBUI_ADMIN_EMAIL"]
            assert sign_in(gateway, administrator, NEW_PASSWORD).status_code == 400
            assert session(sign_in(gateway, administrator, open_webui.admin_password))["role"] == "admin"
            form = {"name": "n", "email": "a@b.example", "password": "long-enough-1A!"}
            for port in ("chat", "chat_upstream"):
                assert httpx.post(gateway.url(port, "/api/v1/auths/signup"), json=form).status_code == 403
            doors = [(method, re.sub(r"{.*?}", "0", path)) for method, path, admin in open_webui.routes() if admin]
            assert len(doors) > 150
            with httpx.Client(base_url=gateway.url("chat"), timeout=30) as client:
                client.headers["Authorization"] = f"Bearer {person['token']}"
                answers = {(method, path): client.request(method, path, json={}).status_code for method, path in doors}
                assert {door: status for door, status in answers.items() if status not in (401, 403)} == {}
                change = {"password": NEW_PASSWORD, "new_password": "by-the-back-door"}
                assert client.post("/api/v1/auths/update/password", json=change).status_code == 403


def test_the_gateway_names_nobody(gateway: Gateway) -> None:
    with Upstream(gateway.port("chat_upstream")) as upstream:
        for choice, named in ((LOGIN, []), (OPEN, [HEADERS["X-Aisandbox-Visitor"]])):
            gateway.choose(choice)
            httpx.get(gateway.url("chat", "/api/config"), headers=HEADERS)
            assert upstream.seen[-1].header("X-Aisandbox-Visitor") == named
            assert len(upstream.seen[-1].header("X-Aisandbox-Visitor-Name")) == len(named)
