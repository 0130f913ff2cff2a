"""Starting and stopping the server: what it refuses, what it says, what it leaves behind."""

from __future__ import annotations

import os
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
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.client import connect

from aisandbox.manifest import REPOSITORY
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
        ({"auth": "1", "jwt_secret": "s" * 31}, ["SANDBOX_JWT_SECRET", "32"]),
        ({"auth": "1", "jwt_public_key": "no key"}, ["SANDBOX_JWT_PUBLIC_KEY"]),
        ({"auth": "1", "jwt_public_key": EC_KEY}, ["RSA"]),
        ({"auth": "1", "jwks_url": "file:///etc/passwd"}, ["SANDBOX_JWKS_URL"]),
        ({"port": "70000"}, ["SANDBOX_PORT"]),
        ({"api_keys_file": "/does/not/exist"}, ["/does/not/exist"]),
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


@pytest.mark.parametrize("auth", ["1", "0"], ids=["asked for", "only set"])
def test_secrets_are_out_of_reach_of_commands(tmp_path: Path, auth: str) -> None:
    """Commands run as the same user; the kernel must not show them the server's environment and memory."""
    if sys.platform != "linux":
        pytest.skip("of Linux")
    with running(tmp_path, auth=auth, api_keys="a-key-that-must-not-leak") as sandbox:
        reader: Any = {"user": 65534} if os.getuid() == 0 else {}
        shown = subprocess.run(["cat", f"/proc/{sandbox.process.pid}/environ"], capture_output=True, **reader)
        assert b"a-key-that-must-not-leak" not in shown.stdout
        assert Path(f"/proc/{sandbox.process.pid}/environ").stat().st_uid == 0
