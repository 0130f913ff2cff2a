"""Who may use chat, API and sandbox: chosen at deployment, changed while it runs, and told while it is open."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import openai
import pytest

from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import Machine
from tests.support import machines
from tests.support.machines import MANIFEST, Visitor, output, reboot, settle, status, url, wait_for

KEY = "key-of-a-test-0123456789"
PASSWORD = "correct-horse-battery"
USER_DATA = f"""#cloud-config
aisandbox:
  api_key: {KEY}
  chat_email: me@example.com
  chat_password: {PASSWORD}
  sandbox: public
"""
SANDBOX_UNITS = "sandbox-api sandbox-display sandbox-browser jupyter code-server"


@pytest.fixture(scope="module")
def guarded(image: Layer) -> Iterator[Machine]:
    """A machine whose deployer closed everything, by the deployment's options alone."""
    with machines.booted("test-guarded", image, USER_DATA) as machine:
        yield machine


def connects(machine: Machine, port: str) -> bool:
    try:
        socket.create_connection((machine.address, MANIFEST.ports[port].port), timeout=2).close()
    except OSError:
        return False
    return True


def test_the_api_wants_its_key(guarded: Machine) -> None:
    base = url(guarded, "api", "/v1")
    with pytest.raises(openai.AuthenticationError) as refused:
        openai.OpenAI(base_url=base, api_key="none").models.list()
    assert refused.value.code == "invalid_api_key"
    client = openai.OpenAI(base_url=base, api_key=KEY)
    (model,) = client.models.list().data
    message = [{"role": "user", "content": "Who are you?"}]
    assert client.chat.completions.create(model=model.id, messages=message).choices[0].message.content  # type: ignore[arg-type]


def test_the_chat_page_wants_its_login(guarded: Machine) -> None:
    address = url(guarded, "chat", "/api/v1/auths/signin")
    nobody = httpx.post(address, json={"email": "", "password": ""})
    wrong = httpx.post(address, json={"email": "me@example.com", "password": "wrong"})
    assert nobody.status_code >= 400 and wrong.status_code >= 400
    right = httpx.post(address, json={"email": "me@example.com", "password": PASSWORD})
    assert right.status_code == 200, right.text
    token = {"Authorization": f"Bearer {right.json()['token']}"}
    assert httpx.get(url(guarded, "chat", "/api/models"), headers=token).json()["data"]
    # Who signs in has the sandbox.
    (sandbox,) = httpx.get(url(guarded, "chat", "/api/v1/terminals/"), headers=token).json()
    listed = httpx.get(url(guarded, "chat", f"/api/v1/terminals/{sandbox['id']}/files/list"), headers=token)
    assert listed.status_code == 200, listed.text


def test_the_public_sandbox_wants_its_key(guarded: Machine) -> None:
    assert httpx.get(url(guarded, "sandbox", "/v1/sandbox")).status_code == 401
    printed = output(guarded, "sudo aisandbox keys")
    (key,) = (line.split()[-1] for line in printed.splitlines() if line.startswith("Sandbox"))
    answer = httpx.get(url(guarded, "sandbox", "/v1/sandbox"), headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    assert guarded.run("aisandbox keys", check=False).returncode != 0, "keys are for root"


def test_they_answer_to_names_that_are_theirs(guarded: Machine) -> None:
    def answers() -> set[int]:
        pages = (url(guarded, "chat", "/api/config"), url(guarded, "api", "/health"))
        return {httpx.get(page, headers={"Host": "ai.example.com"}).status_code for page in pages}

    assert answers() == {421}
    assert "Reloading nginx.service" in output(guarded, "sudo aisandbox configure --set host_names=ai.example.com")
    wait_for("the name", lambda: answers() == {200}, 20)
    output(guarded, "sudo aisandbox configure --unset host_names")
    wait_for("its end", lambda: answers() == {421}, 20)


def test_what_is_closed_is_warned_of_no_more(guarded: Machine) -> None:
    texts = json.dumps(status(guarded)["warnings"])
    assert "without a login" not in texts and "without a key" not in texts
    assert "without encryption" in texts, "passwords travel in plain text until a domain is set"


def test_secrets_stay_secret(guarded: Machine) -> None:
    told = [
        output(guarded, "sudo journalctl --no-pager --output=cat"),
        output(guarded, "sudo find /run/aisandbox -type f -exec cat {} +"),
        output(guarded, "ps axe"),
        httpx.get(url(guarded, "chat", "/aisandbox/status.json")).text,
    ]
    assert [secret for secret in (KEY, PASSWORD) if any(secret in text for text in told)] == []


def test_guards_outlast_a_reboot(guarded: Machine) -> None:
    reboot(guarded)
    assert httpx.get(url(guarded, "api", "/v1/models")).status_code == 401
    assert httpx.get(url(guarded, "sandbox", "/v1/sandbox")).status_code == 401


def test_opening_again_keeps_the_history(guarded: Machine) -> None:
    output(guarded, "sudo aisandbox configure --unset chat_password --unset chat_email --unset api_key")
    settle(guarded)
    wait_for("the open API", lambda: httpx.get(url(guarded, "api", "/v1/models")).status_code == 200)
    visitor = Visitor(guarded)
    visitor.keep("kept while open")
    assert "kept while open" in visitor.history()
    assert visitor.get("/api/v1/terminals/").json() == [], "an open chat is not an open shell"
    assert visitor.get("/api/v1/terminals/sandbox/files/list").status_code == 404
    assert "has none of the sandbox's terminal" in json.dumps(status(guarded)["warnings"])


def test_only_chosen_networks_get_in(guarded: Machine) -> None:
    output(guarded, "sudo aisandbox configure --set allowed_cidrs=203.0.113.0/24,2001:db8::/32")
    wait_for("the closed chat", lambda: not connects(guarded, "chat"), 20)
    assert not connects(guarded, "api") and not connects(guarded, "sandbox") and connects(guarded, "ssh")
    settle(guarded)
    assert status(guarded)["state"] == "ready", "the instance itself is well"
    own = guarded.address.rsplit(".", 1)[0] + ".0/24"
    output(guarded, f"sudo aisandbox configure --set allowed_cidrs={own}")
    wait_for("the open chat", lambda: connects(guarded, "chat"), 20)
    assert connects(guarded, "api")
    settle(guarded)
    assert [entry["id"] for entry in Visitor(guarded).get("/api/v1/terminals/").json()] == ["sandbox"]


def test_no_sandbox_at_all(guarded: Machine) -> None:
    def active() -> set[str]:
        return set(guarded.run(f"systemctl is-active {SANDBOX_UNITS}", check=False).stdout.split())

    output(guarded, "sudo aisandbox configure --set sandbox=off")
    wait_for("the end of the sandbox", lambda: active() == {"inactive"}, 60)
    assert not connects(guarded, "sandbox")
    settle(guarded)
    output(guarded, "sudo aisandbox configure --set sandbox=local")
    wait_for("the sandbox", lambda: active() == {"active"}, 60)
    assert not connects(guarded, "sandbox"), "reached by SSH tunnel only"
