"""What clients are told: texts in the form that each of them reads, with this instance's own facts."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest
import yaml
from playwright._impl._driver import compute_driver_executable
from typer.testing import CliRunner, Result

from aisandbox.instance import cli
from aisandbox.instance.commands import console
from aisandbox.instance.observe import clients, publisher, status
from aisandbox.instance.observe.clients import CLIENTS, Connection
from aisandbox.instance.places import Places
from aisandbox.manifest import REPOSITORY, Manifest
from tests.support import appliance
from tests.support.appliance import MANIFEST
from tests.support.deployments import resolve

KEY = "a.key~with_signs-" + "x" * 8
Connect = Callable[..., Result]


class Models(BaseHTTPRequestHandler):
    answer: ClassVar[dict[str, object]] = {"data": [{"id": "acme/name", "max_model_len": 40_960}]}

    def do_GET(self) -> None:
        answer = json.dumps(self.answer).encode()
        self.send_response(200 if self.path in ("/v1/models", "/health") else 404)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[int]:
    """A model server's list of models; gives its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def on_port(port: int) -> Manifest:
    moved = {"api_upstream": MANIFEST.ports["api_upstream"].model_copy(update={"port": port})}
    return MANIFEST.model_copy(update={"ports": MANIFEST.ports | moved})


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = appliance.make(tmp_path / "root")
    appliance.options(made, f"api_key: {KEY}\n")
    resolve(made, model=appliance.GUIDE)
    return made


@pytest.fixture
def connect(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Connect:
    def run(*arguments: str, port: int = 1) -> Result:
        monkeypatch.setattr(console, "manifest", lambda: on_port(port))
        return CliRunner().invoke(cli.app, ["--root", str(places.root), "connect", *arguments])

    return run


HERE = cast("Places", SimpleNamespace(templates=REPOSITORY / "templates"))
SHOWN = Connection("AI Sandbox", "http://192.0.2.1:8000", "acme/name", KEY, 40_960)


def text(name: str, connection: Connection = SHOWN) -> str:
    return clients.told(HERE, name, connection)


def test_there_is_a_text_for_each(places: Places) -> None:
    assert {path.stem for path in (places.templates / "connect").iterdir()} == set(CLIENTS)


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_each_is_told_address_key_and_model(name: str) -> None:
    told = text(name)
    assert all(fact in told for fact in ("http://192.0.2.1:8000", KEY, "acme/name"))
    assert told.endswith("\n") and "{{" not in told


@pytest.mark.parametrize("name", ["claude-code", "opencode", "zed"])
def test_json_is_json(name: str) -> None:
    assert json.loads("\n".join(line for line in text(name).splitlines() if not line.startswith("//")))


@pytest.mark.parametrize("name", ["aider", "continue", "litellm"])
def test_yaml_is_yaml(name: str) -> None:
    assert isinstance(yaml.safe_load(text(name)), dict)


def test_the_file_for_litellm_says_how_its_proxy_is_started() -> None:
    told = text("litellm")
    comments = [line.removeprefix("#") for line in told.splitlines() if line.startswith("#")]
    assert all(name in comments[1] for name in ("LITELLM_MASTER_KEY=", "LITELLM_LOCAL_MODEL_COST_MAP=True"))
    assert comments[2].split() == ["litellm", "--config", "config.yaml"]


@pytest.mark.parametrize("name", ["anthropic", "langchain", "llama-index", "openai"])
def test_programs_are_programs(name: str) -> None:
    ast.parse(text(name))


def test_the_one_for_nodejs_is_one_too(tmp_path: Path) -> None:
    program = tmp_path / "client.mjs"
    program.write_text(text("openai-node"))
    # The one that Playwright brings: the host has none.
    node, _ = compute_driver_executable()
    subprocess.run([node, "--check", program], check=True)


def test_an_environment_file_is_one() -> None:
    assert tomllib.loads(text("qwen-code"))["OPENAI_BASE_URL"] == "http://192.0.2.1:8000/v1"


def test_a_command_reaches_curl_as_it_is_meant(tmp_path: Path) -> None:
    shown = text("curl", Connection("P", "http://h:1", "a/it's", "k", 400))
    script = "curl() { printf '%s\\0' \"$@\"; }\n" + shown
    words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")
    assert "http://h:1/v1/chat/completions" in words and "Authorization: Bearer k" in words
    body = json.loads(next(word for word in words if word.startswith("{")))
    assert (body["model"], body["max_tokens"]) == ("a/it's", 100)


def test_the_page_names_them_all() -> None:
    rows = (REPOSITORY / "docs" / "clients.md").read_text().split("| name |")[1].splitlines()[2:]
    assert [row.split("`")[1] for row in rows if row.startswith("|")] == list(CLIENTS)


def test_limits_are_those_of_the_instance() -> None:
    assert (SHOWN.output, Connection("P", "http://h", "m", "k", 4096).output) == (8192, 1024)
    limit = json.loads(text("opencode"))["provider"]["aisandbox"]["models"]["acme/name"]["limit"]
    assert limit == {"context": 40_960, "output": 8192}


def test_the_list(connect: Connect) -> None:
    shown = connect()
    assert shown.exit_code == 0 and [line.split()[0] for line in shown.stdout.splitlines()] == list(CLIENTS)


def test_what_is_shown_is_of_this_instance(connect: Connect, engine: int) -> None:
    shown = connect("claude-code", port=engine)
    told = json.loads(shown.stdout)["env"]
    assert told["ANTHROPIC_AUTH_TOKEN"] == KEY and told["ANTHROPIC_MODEL"] == "acme/name"
    assert told["ANTHROPIC_BASE_URL"].startswith("http://") and told["ANTHROPIC_BASE_URL"].endswith(":8000")
    assert "~/.claude/settings.json" in shown.stderr


def test_without_a_key_clients_get_a_word_for_it(connect: Connect, places: Places, engine: int) -> None:
    appliance.options(places, "")
    assert json.loads(connect("claude-code", port=engine).stdout)["env"]["ANTHROPIC_AUTH_TOKEN"] == "none"


def test_a_file_is_private_and_never_written_over(connect: Connect, engine: int, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    assert connect("opencode", "--write", str(file), port=engine).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = file.read_text()
    again = connect("zed", "--write", str(file), port=engine)
    assert again.exit_code == 1 and "is there already" in again.stderr and file.read_text() == kept
    nowhere = connect("zed", "--write", str(tmp_path / "no" / "file"), port=engine)
    assert nowhere.exit_code == 1 and "No such file" in nowhere.stderr


def test_by_sudo_it_is_the_callers(
    connect: Connect, engine: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "1235")
    if os.geteuid():
        pytest.skip("only root gives files away")
    connect("qwen-code", "--write", str(tmp_path / "env"), port=engine)
    found = (tmp_path / "env").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 1235, 0o600)


def test_mistakes(connect: Connect, engine: int) -> None:
    unknown = connect("emacs", port=engine)
    assert unknown.exit_code == 2 and "no client emacs" in unknown.stderr and "opencode" in unknown.stderr
    early = connect("curl")
    assert early.exit_code == 1 and "status --wait" in early.stderr


@pytest.mark.parametrize("asked", [True, False])
def test_the_page_tells_the_same_without_the_key(connect: Connect, places: Places, engine: int, asked: bool) -> None:
    appliance.options(places, f"api_key: {KEY}\n" if asked else "")
    resolve(places, model=appliance.GUIDE, access={"api_key": asked})
    manifest = on_port(engine)
    page = clients.public(places, manifest, status.compose(places, manifest))
    assert KEY not in json.dumps(page)
    assert (page["key"], page["model"]) == (clients.YOUR_KEY if asked else "", "acme/name")
    assert [told["name"] for told in page["clients"]] == list(CLIENTS)
    for told in page["clients"]:
        assert page["server"] in told["text"]
        assert told["text"].replace(clients.YOUR_KEY, KEY) == connect(told["name"], port=engine).stdout
        assert (told["label"], told["place"]) == (CLIENTS[told["name"]].label, CLIENTS[told["name"]].place)


def test_it_is_published_while_the_instance_is_ready(
    places: Places, engine: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(manifest: Manifest, *then: Callable[[], None]) -> None:
        """As many rounds as there are things to do after them, and one more."""
        rest = iter(then)

        def pause(_: float) -> None:
            if not (step := next(rest, None)):
                raise KeyboardInterrupt
            step()

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(time, "sleep", pause)
            publisher.publish(places, manifest)

    def published() -> str:
        return cast("str", json.loads(places.published_clients.read_text())["key"])

    def all_on(port: int) -> Manifest:
        moved = {name: entry.model_copy(update={"port": port}) for name, entry in MANIFEST.ports.items()}
        return MANIFEST.model_copy(update={"ports": moved})

    keys: list[str] = []

    def ask_for_a_key() -> None:
        keys.append(published())
        resolve(places, model=appliance.GUIDE, access={"api_key": True})

    publish(all_on(engine), ask_for_a_key)
    assert [*keys, published()] == ["", clients.YOUR_KEY]
    publish(all_on(1))
    assert not places.published_clients.exists()


def test_a_server_that_lists_no_model_does_not_serve(
    places: Places, engine: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    overview = status.compose(places, on_port(engine)).model_copy(update={"state": "ready"})
    monkeypatch.setattr(Models, "answer", {"data": []})
    with pytest.raises(clients.NotServingError):
        clients.public(places, on_port(engine), overview)


def test_an_address_with_brackets_stays_one_word_of_the_shell() -> None:
    told = text("curl", Connection("P", "http://h:1", "m", "k", 400)).replace("http://h:1", "http://[2001:db8::7]:1")
    assert "'http://[2001:db8::7]:1/v1/chat/completions'" in told
