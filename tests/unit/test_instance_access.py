"""The guards: what follows from the choice, what is warned of, and what is rendered for the sandbox and its keys."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from aisandbox.instance.access import Access
from aisandbox.instance.choose import access, configure
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.observe.notices import warnings
from aisandbox.instance.places import Places
from aisandbox.instance.run import rendering, services
from aisandbox.manifest import REPOSITORY
from tests.support import appliance
from tests.support.appliance import MANIFEST

KEY = "sk-0123456789abcdef"
SECRETS = {"api_key": "generated-key", "chat_password": "generated-password"}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path)


def rendered(places: Places, name: str) -> str:
    return (places.etc / name).read_text()


def test_without_a_choice_everything_is_open() -> None:
    assert access.of(Choice()) == Access()
    assert access.api_key(Choice(), SECRETS) is None
    assert access.chat_password(Choice(), SECRETS) is None


def test_every_guard() -> None:
    secret = SecretStr("0123456789abcdef")
    choice = Choice(
        api_key=secret, chat_password=secret, allowed_cidrs="192.0.2.0/24,2001:db8::/48", domain="a.example"
    )
    guards = access.of(choice)
    assert guards == Access(
        api_key=True, chat_login=True, allowed_cidrs=("192.0.2.0/24", "2001:db8::/48"), domain="a.example"
    )
    assert access.api_key(choice, SECRETS) == access.chat_password(choice, SECRETS) == "0123456789abcdef"


def test_a_guard_that_was_asked_for_wrongly_is_closed() -> None:
    choice = Choice(closed=frozenset({"api_key", "chat_password", "allowed_cidrs"}))
    assert access.of(choice) == Access(api_key=True, chat_login=True, allowed_cidrs=access.NOBODY)
    assert access.api_key(choice, SECRETS) == "generated-key"
    assert access.chat_password(choice, SECRETS) == "generated-password"


@pytest.mark.parametrize(
    ("guards", "ports"),
    [
        ({}, [3000, 8000]),
        ({"api_key": True, "domain": "a.example"}, [3000]),
        ({"chat_login": True, "domain": "a.example"}, [8000]),
        ({"chat_login": True, "api_key": True, "domain": "a.example"}, []),
        ({"allowed_cidrs": ("192.0.2.7",)}, []),
        ({"sandbox": "public", "domain": "a.example"}, [3000, 8000, 8080]),
        ({"sandbox": "public", "allowed_cidrs": ("192.0.2.7",), "domain": "a.example"}, [8080]),
        ({"sandbox": "off"}, [3000, 8000]),
    ],
)
def test_what_is_open_is_warned_of_until_it_is_closed(guards: dict[str, Any], ports: list[int]) -> None:
    found = warnings(MANIFEST, Access(**guards))
    assert [port for warning in found for port in (3000, 8000, 8080) if f"port {port}" in warning.text] == ports
    assert all("sudo aisandbox configure --" in warning.fix for warning in found)


def test_an_open_chat_is_not_an_open_shell() -> None:
    """The sandbox is in the chat only where that is for some people, and else the warning says so, with its command."""
    for guards, offered in (
        ({}, False),
        ({"sandbox": "public", "api_key": True, "domain": "a.example"}, False),
        ({"chat_login": True}, True),
        ({"allowed_cidrs": ("192.0.2.7",)}, True),
        ({"chat_login": True, "sandbox": "off"}, False),
    ):
        assert Access(**guards).chat_sandbox is offered, guards
    for container in (False, True):
        said = warnings(MANIFEST, Access(), container)[0]
        assert "none of the sandbox's terminal, files and tools" in said.text and "--chat-password" in said.fix
    assert "sandbox" not in warnings(MANIFEST, Access(sandbox="off"))[0].text


@pytest.mark.parametrize(
    ("guards", "named"),
    [
        ({}, None),
        ({"api_key": True}, "the API's key"),
        ({"chat_login": True}, "the login"),
        ({"api_key": True, "chat_login": True}, "the login of the chat page and the API's key"),
        ({"api_key": True, "domain": "a.example"}, None),
    ],
)
def test_secrets_on_the_way_without_encryption_are_warned_of(guards: dict[str, Any], named: str | None) -> None:
    found = [w for w in warnings(MANIFEST, Access(**guards)) if "HTTP" in w.text]
    assert [named in warning.text for warning in found if named] == [True] * bool(named)
    assert all("domain=" in warning.fix for warning in found)


def test_the_commands_of_the_warnings_are_understood(places: Places) -> None:
    """Closing each warning by its own command closes it; the rest of the line is words."""
    configure.apply(places, MANIFEST)
    for flag, value in (("--chat-password", "correct-horse-7"), ("--api-key", KEY)):
        run(places, "configure", flag, "-", given=f"{value}\n")
    run(places, "configure", "--set", "allowed_cidrs=192.0.2.7", "--set", "domain=ai.example.com")
    deployment = configure.apply(places, MANIFEST).deployment
    assert warnings(MANIFEST, deployment.access) == ()


def run(places: Places, *arguments: str, given: str = "") -> str:
    command = [sys.executable, "-m", "aisandbox.instance", "--root", str(places.root), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_names_the_command(places: Places) -> None:
    assert "Usage: aisandbox [OPTIONS]" in run(places, "--help")
    assert "Usage: aisandbox keys" in run(places, "keys", "--help")


def test_keys_are_shown_by_their_own_command_only(places: Places) -> None:
    appliance.options(
        places, f"api_key: {KEY}\nchat_password: correct-horse-7\nchat_email: me@example.com\nsandbox: public\n"
    )
    told = run(places, "configure", "--boot")
    kept = configure.secrets_of(places)
    shown = run(places, "keys")
    secret = [KEY, "correct-horse-7", kept["sandbox_key"]]
    assert all(value in shown for value in secret) and "me@example.com" in shown
    assert kept["api_key"] not in shown and kept["admin_password"] not in shown
    assert not any(value in told + run(places, "status") + run(places, "status", "--json") for value in secret)


def test_keys_says_what_asks_for_none(places: Places) -> None:
    assert run(places, "keys").count("asks for no") == 3


def test_a_secret_of_the_choice_is_in_files_of_root_alone(places: Places) -> None:
    appliance.options(places, f"api_key: {KEY}\nsandbox: public\n")
    places.options.chmod(0o600)
    configure.apply(places, MANIFEST)
    values = (KEY, *configure.secrets_of(places).values())
    holders = [
        path
        for path in places.root.rglob("*")
        if path.is_file() and any(value in path.read_text(errors="replace") for value in values)
    ]
    assert {path.name for path in holders} >= {"api-lock.conf", "sandbox-api.env", "open-webui.env", "sandbox_key"}
    assert [path for path in holders if stat.S_IMODE(path.stat().st_mode) != 0o600] == []


def test_the_key_is_asked_for_by_the_gateway(places: Places) -> None:
    configure.apply(places, MANIFEST)
    assert 'default "";' in rendered(places, "nginx/api-lock.conf")
    appliance.options(places, f"api_key: {KEY}\n")
    outcome = configure.apply(places, MANIFEST)
    assert services.NGINX in configure.services_to_reload(outcome)
    assert services.NGINX not in configure.services_to_restart(places, outcome)
    assert "default 401;" in rendered(places, "nginx/api-lock.conf") and KEY in rendered(places, "nginx/api-lock.conf")


def test_networks_reload_gateway_and_firewall_and_nothing_else(places: Places) -> None:
    """The gateway lets those whom they let in change the chat page's settings."""
    configure.apply(places, MANIFEST)
    appliance.options(places, "allowed_cidrs: 192.0.2.7\n")
    outcome = configure.apply(places, MANIFEST)
    assert configure.services_to_reload(outcome) == (services.NGINX, services.FIREWALL)
    assert services.SANDBOX_API not in configure.services_to_restart(places, outcome)


def test_the_sandbox_goes_off_and_comes_back(places: Places) -> None:
    configure.apply(places, MANIFEST)
    switch = places.etc / "sandbox.off"
    assert not switch.exists()
    for chosen in ("off", "local"):
        appliance.options(places, f"sandbox: '{chosen}'\n")
        outcome = configure.apply(places, MANIFEST)
        assert switch.exists() == (chosen == "off")
        assert set(services.SANDBOX) <= set(configure.services_to_restart(places, outcome))


def test_a_public_sandbox_asks_for_its_key(places: Places) -> None:
    configure.apply(places, MANIFEST)
    key = f"SANDBOX_API_KEYS={configure.secrets_of(places)['sandbox_key']}"
    local = rendered(places, "sandbox-api.env").splitlines()
    assert key in local and not any(line.startswith(("SANDBOX_AUTH", "SANDBOX_HOST")) for line in local)
    appliance.options(places, "sandbox: public\n")
    outcome = configure.apply(places, MANIFEST)
    assert {key, "SANDBOX_AUTH=1", "SANDBOX_HOST=0.0.0.0"} <= set(rendered(places, "sandbox-api.env").splitlines())
    assert services.SANDBOX_API in configure.services_to_restart(places, outcome)
    assert services.FIREWALL in configure.services_to_reload(outcome)


def test_every_template_is_there() -> None:
    assert [
        entry.template for entry in rendering.RENDERED if not (REPOSITORY / "templates" / entry.template).exists()
    ] == []
    assert len({entry.file for entry in rendering.RENDERED}) == len(rendering.RENDERED)
