"""What the choice makes of Open WebUI's settings, and which login its shared account gets; without starting it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from aisandbox.instance.choose.options import Choice
from aisandbox.instance.guard import chat_account
from aisandbox.instance.guard.chat_account import VISITOR, Login, login, settled
from aisandbox.manifest import load
from tests.gateway.installation import environment

MANIFEST = load()
PASSWORD = "\"quotes\" \\and $signs` 'too'".replace(" ", "")
SECRETS = {"webui_secret_key": "w", "admin_password": "a", "sandbox_key": "the-key", "chat_password": "generated"}


def settings(**options: object) -> dict[str, str]:
    return environment(MANIFEST, Choice.model_validate(options), SECRETS)


def test_without_a_password_the_gateway_names_the_visitor() -> None:
    found = settings(chat_email="me@example.com")
    assert found["WEBUI_AUTH_TRUSTED_EMAIL_HEADER"] == "X-Aisandbox-Visitor"
    assert found["ENABLE_LOGIN_FORM"] == "False"
    assert login(found) is None


def test_with_a_password_nobody_is_named() -> None:
    found = settings(chat_password=PASSWORD, chat_email="Me@Example.com")
    assert not [key for key in found if "TRUSTED" in key]
    assert (found["ENABLE_LOGIN_FORM"], found["ENABLE_SIGNUP"]) == ("True", "False")
    assert login(found) == Login("me@example.com", PASSWORD)


def test_the_address_has_a_default() -> None:
    assert login(settings(chat_password=PASSWORD)) == Login("user@aisandbox.local", PASSWORD)


def test_a_password_that_cannot_be_used_closes_the_page() -> None:
    found = settings(closed={"chat_password"})
    assert login(found) == Login("user@aisandbox.local", "generated")
    assert not [key for key in found if "TRUSTED" in key]


@pytest.mark.parametrize("email", ["administrator@aisandbox.invalid", VISITOR.upper()])
def test_our_own_addresses_are_not_for_people(email: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        login({"AISANDBOX_CHAT_EMAIL": email, "AISANDBOX_CHAT_PASSWORD": PASSWORD})


def test_nothing_is_to_be_done_for_an_open_page_of_a_new_instance(tmp_path: Path) -> None:
    assert settled(tmp_path / "webui.db", None)
    assert not settled(tmp_path / "webui.db", Login("me@example.com", PASSWORD))
    assert not (tmp_path / "webui.db").exists()


@pytest.mark.parametrize(("email", "done"), [(VISITOR, True), ("me@example.com", False)])
def test_an_open_page_wants_the_visitors_account(tmp_path: Path, email: str, done: bool) -> None:
    database = tmp_path / "webui.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE user (id, email, role, created_at)")
        connection.execute("CREATE TABLE auth (id, email, password)")
        accounts = [("1", "administrator@aisandbox.invalid", "admin", 1), ("2", email, "user", 2)]
        connection.executemany("INSERT INTO user VALUES (?, ?, ?, ?)", accounts)
        connection.executemany("INSERT INTO auth VALUES (?, ?, 'x')", [account[:2] for account in accounts])
    assert settled(database, None) is done
    assert not settled(database, Login("other@example.com", PASSWORD))


def test_a_half_made_database_is_not_settled(tmp_path: Path) -> None:
    (tmp_path / "webui.db").touch()
    assert not settled(tmp_path / "webui.db", Login("me@example.com", PASSWORD))


def test_the_door_is_closed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What strangers left is undone at the first start with a guard; whoever is stopped half-way begins again."""
    closed: list[bool] = []
    works = True

    async def prepare(wanted: Login | None, settled: bool, closing: bool) -> None:
        assert works
        closed.append(closing)

    def start(**options: object) -> None:
        with monkeypatch.context() as patch:
            for name in ("AISANDBOX_CHAT_OPEN", "AISANDBOX_CHAT_PASSWORD"):
                patch.delenv(name, raising=False)
            for name, value in {**settings(**options), "DATA_DIR": str(tmp_path / "data")}.items():
                patch.setenv(name, value)
            patch.setattr(chat_account, "prepare", prepare)
            chat_account.main()

    start()
    start()
    assert closed == []
    works = False
    with pytest.raises(AssertionError):
        start(allowed_cidrs="192.0.2.7")
    works = True
    start(allowed_cidrs="192.0.2.7")
    start(allowed_cidrs="192.0.2.7")
    assert closed == [True]
    # A login is another account's matter, too, but nobody unknown had been here.
    start(chat_password=PASSWORD)
    start()
    start(chat_password=PASSWORD)
    assert closed == [True, False, True]


def test_it_imports_nothing_of_ours() -> None:
    """It runs in Open WebUI's environment, where our libraries are not."""
    source = Path(chat_account.__file__).read_text()
    assert "aisandbox.instance" not in source.replace("aisandbox.invalid", "")


@pytest.mark.parametrize("sandbox", ["local", "public"])
@pytest.mark.parametrize(
    "guard",
    [{"chat_password": PASSWORD}, {"allowed_cidrs": "192.0.2.7"}, {"closed": {"chat_password"}}],
)
def test_the_sandbox_is_reached_with_its_key(sandbox: str, guard: dict[str, object]) -> None:
    (connection,) = json.loads(settings(sandbox=sandbox, **guard)["TERMINAL_SERVER_CONNECTIONS"])
    assert (connection["auth_type"], connection["key"]) == ("bearer", "the-key")


@pytest.mark.parametrize(
    "chosen",
    [
        {"sandbox": "off", "chat_password": PASSWORD},
        {},
        {"sandbox": "public"},
        # None of these keeps anybody from the chat page.
        {"api_key": "sk-0123456789abcdef", "domain": "ai.example.com", "chat_email": "me@example.com"},
    ],
)
def test_no_sandbox_no_terminal(chosen: dict[str, object]) -> None:
    """Where there is none, and in a chat that is open to everybody."""
    found = settings(**chosen)
    assert "TERMINAL_SERVER_CONNECTIONS" not in found
    metadata = json.loads(found["DEFAULT_MODEL_METADATA"])
    assert metadata["capabilities"]["terminal"] is False
    assert "terminalId" not in metadata


def test_pictures_are_offered_to_models_that_may_see() -> None:
    for embedded in (False, True):
        found = environment(MANIFEST, Choice(), SECRETS, embedded=embedded)
        assert json.loads(found["DEFAULT_MODEL_METADATA"])["capabilities"]["vision"] is not embedded


@pytest.mark.parametrize(
    ("chosen", "anybody"),
    [
        ({}, True),
        ({"allowed_cidrs": "192.0.2.7"}, False),
        ({"chat_password": PASSWORD}, False),
        ({"sandbox": "off"}, True),
    ],
)
def test_only_who_was_let_in_changes_the_page(chosen: dict[str, object], anybody: bool) -> None:
    found = settings(**chosen)
    assert ("AISANDBOX_CHAT_OPEN" in found) is anybody
    for name in ("SETTINGS_INTERFACE", "CHAT_SYSTEM_PROMPT", "FEATURES_FOLDERS", "FEATURES_MEMORIES", "CHAT_SHARE"):
        assert found.get(f"USER_PERMISSIONS_{name}") == ("False" if anybody else None)


def test_the_address_is_the_domains() -> None:
    assert settings(domain="ai.example.com")["WEBUI_URL"] == "https://ai.example.com"
    assert settings()["CORS_ALLOW_ORIGIN"] == "http://localhost:3000"


def test_the_banner_warns_until_all_is_dealt_with() -> None:
    (banner,) = json.loads(settings()["WEBUI_BANNERS"])
    assert banner["content"].count("<li>") == 2
    (less,) = json.loads(settings(api_key="sk-0123456789abcdef")["WEBUI_BANNERS"])
    assert less["id"] != banner["id"]
    guarded = {"api_key": "sk-0123456789abcdef", "chat_password": PASSWORD, "domain": "ai.example.com"}
    assert "WEBUI_BANNERS" not in settings(**guarded)
