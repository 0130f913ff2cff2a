"""Starting and stopping the server: what it refuses, what it says, what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.client import connect

from aisandbox.manifest import REPOSITORY
from sandbox_api.environment import child_environment
from sandbox_api.settings import Settings, unknown_variables
from tests.support.sandbox import free_port, running

EC_KEY = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
).decode()  # fmt: skip


def start(root: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the server, which is expected to give up."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
    values = {"root": str(root), "port": str(free_port()), **settings}
    variables |= {f"SANDBOX_{name.upper()}": value for name, value in values.items()}
    return subprocess.run(
        [sys.executable, "-m", "sandbox_api", *arguments],
        env=variables, cwd=REPOSITORY, capture_output=True, text=True, timeout=20,
    )  # fmt: skip


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"host": "0.0.0.0"}, ["0.0.0.0", "SANDBOX_AUTH=1", "SANDBOX_ALLOW_UNAUTHENTICATED=1"]),
        ({"host": "::"}, ["refusing to listen on ::"]),
        ({"host": "0.0.0.0", "api_keys": "a-key-without-the-switch"}, ["refusing to listen"]),
        ({"auth": "1"}, ["SANDBOX_API_KEYS", "SANDBOX_JWT_SECRET"]),
        ({"auth": "1", "api_keys": " , "}, ["there is no key"]),
        ({"auth": "1", "api_keys": "k" * 14}, ["fewer than 15 characters", "SANDBOX_API_KEYS", "openssl rand"]),
        ({"api_key": "x"}, ["fewer than 15 characters"]),
        ({"auth": "1", "api_keys": "long-enough-of-the-tests,short"}, ["fewer than 15 characters"]),
        ({"auth": "1", "jwt_secret": "s" * 31}, ["SANDBOX_JWT_SECRET", "32"]),
        ({"auth": "1", "jwt_public_key": "no key"}, ["SANDBOX_JWT_PUBLIC_KEY"]),
        ({"auth": "1", "jwt_public_key": EC_KEY}, ["RSA"]),
        ({"auth": "1", "jwks_url": "file:///etc/passwd"}, ["SANDBOX_JWKS_URL"]),
        ({"port": "70000"}, ["SANDBOX_PORT"]),
        ({"api_keys_file": "/does/not/exist"}, ["/does/not/exist"]),
        ({"auht": "1"}, ["SANDBOX_AUHT is not a setting; did you mean SANDBOX_AUTH?"]),
        ({"api_key_file": "/keys"}, ["SANDBOX_API_KEY_FILE is not a setting; did you mean SANDBOX_API_KEYS_FILE?"]),
        ({"something": "1", "hots": "::"}, ["SANDBOX_SOMETHING is not a setting; sandbox-api --help", "SANDBOX_HOST?"]),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, str], words: list[str]) -> None:
    refused = start(tmp_path, **settings)
    assert refused.returncode == 2
    assert all(word in refused.stderr for word in words), refused.stderr
    assert refused.stderr.startswith("sandbox-api: ")
    assert "Traceback" not in refused.stderr
    assert "listening" not in refused.stderr


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start(tmp_path, port=str(port))
    assert refused.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = start(tmp_path / "file" / "root")
    assert refused.returncode == 1
    assert "cannot start" in refused.stderr


@pytest.mark.parametrize(
    "switch", [{"allow_unauthenticated": "1"}, {"in_container": "1"}, {"auth": "1", "api_keys": "k" * 20}]
)
def test_what_allows_to_listen_beyond_loopback(tmp_path: Path, switch: dict[str, str]) -> None:
    # Nothing must be reachable from elsewhere in a test: this address does not exist here, so only the bind fails.
    refused = start(tmp_path, host="192.0.2.1", **switch)
    assert refused.returncode == 1
    assert "cannot start" in refused.stderr


def test_keys_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "keys"
    secret.write_text("first-key-in-a-file\nsecond-key-in-a-file\n")
    with running(tmp_path / "root", auth="1", api_keys_file=str(secret)) as sandbox:
        assert sandbox.client.get("/auth", headers={"X-API-Key": "second-key-in-a-file"}).status_code == 200
        assert (
            sandbox.client.get("/auth", headers={"X-API-Key": "first-key-in-a-file\n".strip() + "x"}).status_code == 401
        )


@pytest.mark.parametrize("more", [{}, {"api_keys": "one-key-of-the-tests,another-of-the-tests"}], ids=["alone", "more"])
def test_the_peers_name_of_the_key_asks_for_it(tmp_path: Path, more: dict[str, str]) -> None:
    """`-e SANDBOX_API_KEY=…`, from the manual of another image, must not end in a shell that is open to all."""
    with running(tmp_path, api_key="a-key-by-the-peers-name", **more) as sandbox:
        assert sandbox.client.get("/auth").status_code == 401
        for key in ("a-key-by-the-peers-name", *filter(None, more.get("api_keys", "").split(","))):
            assert sandbox.client.get("/auth", headers={"X-API-Key": key}).status_code == 200


def test_the_switch_goes_before_the_peers_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_API_KEY", "a-key-by-the-peers-name")
    monkeypatch.setenv("SANDBOX_AUTH", "0")
    assert not Settings().auth
    monkeypatch.delenv("SANDBOX_AUTH")
    assert Settings().auth
    monkeypatch.setenv("SANDBOX_API_KEY", "")
    assert not Settings().auth
    monkeypatch.setenv("SANDBOX_JWT_PUBLIC_KEY", "PEM")
    assert Settings().auth, "the peer has no other switch"


def test_what_kubernetes_sets_for_a_service_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names them after services, which may well be called `sandbox` or `sandbox-api`."""
    links = {
        "SANDBOX_SERVICE_HOST": "10.0.0.1", "SANDBOX_SERVICE_PORT": "8080", "SANDBOX_SERVICE_PORT_HTTP": "8080",
        "SANDBOX_PORT": "tcp://10.0.0.1:8080", "SANDBOX_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "SANDBOX_PORT_8080_TCP_ADDR": "10.0.0.1", "SANDBOX_API_PORT": "tcp://10.0.0.1:8080",
        "SANDBOX_API_SERVICE_HOST": "10.0.0.1", "SANDBOX_API_PORT_53_UDP_PROTO": "udp",
    }  # fmt: skip
    assert unknown_variables(links) == {}
    assert unknown_variables({"SANDBOX_API_PORT": "8080"}) == {"SANDBOX_API_PORT": "SANDBOX_PORT"}
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    assert Settings().port == 8080


def test_what_the_repository_sets_is_known() -> None:
    """A variable of the catalogue, a template or a manual that the server refused would keep it from starting."""
    folders = ("ansible", "templates", "roles", "docs")
    files = [path for name in folders for path in (REPOSITORY / name).rglob("*") if path.is_file()]
    files += [REPOSITORY / "compose.yaml", REPOSITORY / "sandbox_api" / "launch.py"]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    names = {name for text in texts for name in re.findall(r"\bSANDBOX_[A-Z][A-Z0-9_]*[A-Z0-9]", text)}
    assert len(names) > 50
    assert unknown_variables(dict.fromkeys(names, "")) == {}


def test_keys_without_the_switch_are_warned_of(tmp_path: Path) -> None:
    with running(tmp_path, api_keys="a-key-without-the-switch") as sandbox:
        assert sandbox.client.get("/auth").json()["method"] == "none"
        assert "SANDBOX_AUTH is off" in sandbox.log.read_text()


def test_it_stops_soon_with_all_that_it_started(tmp_path: Path) -> None:
    """Although half a request, a silent connection, a terminal, a stream of events and commands are open."""
    with running(tmp_path) as sandbox, ExitStack() as stack:
        for sent in (b"", b"POST /tickets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", sandbox.port)))
            connection.sendall(sent)
        stack.enter_context(connect(f"ws://127.0.0.1:{sandbox.port}/v1/shell/ws"))
        watcher = sandbox.client.post("/v1/file/watch", json={"path": str(sandbox.workspace)}).json()["data"]
        events = sandbox.client.stream("GET", f"/v1/file/watch/{watcher['watcher_id']}/events")
        assert stack.enter_context(events).status_code == 200
        waiting = {"command": "trap '' TERM; sleep 1000 & sleep 1000", "async_mode": True}
        assert sandbox.client.post("/v1/bash/exec", json=waiting).status_code == 200
        time.sleep(0.5)
        started = psutil.Process(sandbox.process.pid).children(recursive=True)
        assert any("sleep" in process.name() for process in started)
        begin = time.monotonic()
        sandbox.process.send_signal(signal.SIGTERM)
        sandbox.process.wait(20)
        assert time.monotonic() - begin < 8
        _, alive = psutil.wait_procs(started, timeout=3)
        assert not alive
        assert "Traceback" not in sandbox.log.read_text()


@pytest.mark.parametrize("name", ["SANDBOX_API_KEYS", "SANDBOX_API_KEY", "SANDBOX_JWT_SECRET", "sandbox_api_keys"])
def test_no_program_inherits_a_secret(tmp_path: Path, name: str) -> None:
    """Libraries start programs of their own with our whole environment, as Playwright does with its driver."""
    serve = "import os, subprocess, sandbox_api.serve\n"
    serve += "sandbox_api.serve.serve = lambda settings: subprocess.call(['env']) or print(settings.model_dump())\n"
    serve += "from sandbox_api.__main__ import main; main()"
    secret = "a-secret-of-the-tests-that-has-32-bytes"
    variables = {"PATH": os.environ["PATH"], "SANDBOX_ROOT": str(tmp_path), name: secret}
    run = subprocess.run(
        [sys.executable, "-c", serve], env=variables, cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert f"SANDBOX_ROOT={tmp_path}" in run.stdout
    assert "SecretStr('**********')" in run.stdout, "it was read"
    assert secret not in run.stdout
    assert name not in run.stdout


@pytest.mark.parametrize("name", ["SANDBOX_API_KEYS", "sandbox_api_keys", "Sandbox_Jwt_Secret"])
def test_commands_get_no_secret_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "a-secret-of-the-tests-that-has-32-bytes")
    assert name not in child_environment(Settings(root=tmp_path))


CATALOGUE = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())
MODULES = {name: service["command"] for name, service in CATALOGUE["services"].items() if "-m" in service["command"]}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "vllm"])
def test_services_import_nothing_from_where_they_are(tmp_path: Path, name: str) -> None:
    """Their folders are the sandbox's home, or a /tmp that they share with it: others write there.

    The engine's folder is its own.
    """
    package = MODULES[name][MODULES[name].index("-m") + 1].split(".")[0]
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("print('planted')")
    flags = MODULES[name][1 : MODULES[name].index("-m")]
    found = subprocess.run(
        [sys.executable, *flags, "-c", f"import {package}"],
        cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == ""


@pytest.mark.parametrize("role", ["appliance", "sandbox", "container"])
def test_commands_import_nothing_from_where_they_are_called(role: str) -> None:
    """Root calls `aisandbox` in the workspace, too."""
    tasks = "".join(path.read_text() for path in (REPOSITORY / "roles" / role / "tasks").glob("*.yml"))
    starts = re.findall(r"exec \S.*?/bin/python (.*?)-m ", tasks)
    assert starts and set(starts) == {"-P "}


@pytest.mark.parametrize("auth", ["1", "0"], ids=["asked for", "only set"])
def test_secrets_are_out_of_reach_of_commands(tmp_path: Path, auth: str) -> None:
    """Commands run as the same user; the kernel must not show them the server's environment and memory."""
    with running(tmp_path, auth=auth, api_keys="a-key-that-must-not-leak") as sandbox:
        reader: Any = {"user": 65534} if os.getuid() == 0 else {}
        shown = subprocess.run(["cat", f"/proc/{sandbox.process.pid}/environ"], capture_output=True, **reader)
        assert b"a-key-that-must-not-leak" not in shown.stdout
        assert Path(f"/proc/{sandbox.process.pid}/environ").stat().st_uid == 0
