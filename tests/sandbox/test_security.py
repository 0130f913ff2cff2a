"""Holes that an audit found in another sandbox, tried against this one; and what a stranger may see at all."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from aisandbox.manifest import REPOSITORY
from sandbox_api.environment import child_environment
from sandbox_api.settings import Settings
from tests.sandbox.test_access import KEYS, SECRET, bearer, code, knock
from tests.support.sandbox import Sandbox, running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running(tmp_path_factory.mktemp("secured"), auth="1", api_keys=",".join(KEYS), jwt_secret=SECRET) as started:
        yield started


def raw(sandbox: Sandbox, head: str) -> httpx.Response:
    """Send a request line and headers as they are: clients would tidy them up."""
    with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
        connection.settimeout(10)
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    top, _, body = answer.partition(b"\r\n\r\n")
    return httpx.Response(int(top.split(b" ", 2)[1]), content=body)


# 1. A special Host header chose another part of the server, which asked for nothing.


@pytest.mark.parametrize(
    "host", ["8091-x", "8091-localhost", "{port}-127.0.0.1", "3000-box.test", "localhost", "-", "x.y"]
)
def test_no_host_header_opens_anything(guarded: Sandbox, host: str) -> None:
    named = host.format(port=guarded.port)
    for path in ("/v1/shell/exec", "/v1/sandbox", "/auth"):
        assert raw(guarded, f"GET {path} HTTP/1.1\nHost: {named}").status_code == 401
    for header in ("X-Forwarded-Host", "X-Original-Host", "Forwarded"):
        assert raw(guarded, f"GET /auth HTTP/1.1\nHost: localhost\n{header}: {named}").status_code in (401, 403)


# 2. An extension anywhere in the request target skipped authentication.


@pytest.mark.parametrize(
    "target",
    ["/v1/sandbox?x=.js", "/v1/sandbox?.css", "/v1/sandbox/.js", "/v1/sandbox;.js", "/v1/sandbox#.js", "/auth?/static/",
     "/static/%2e%2e/v1/sandbox", "/static/..%2fv1/sandbox", "/static/..;/auth", "//static/../auth", "/./auth",
     "/STATIC/../auth", "/%73tatic/../auth", "/health/../auth", "/health%2f..%2fauth", "/auth/", "/AUTH", "/auth%00.js",
     "/auth?ticket=", "/auth?ticket=x&ticket=y", "/auth?api_key=first-key-of-the-tests", "/favicon.ico/../auth"],
)  # fmt: skip
def test_no_spelling_of_the_address_opens_anything(guarded: Sandbox, target: str) -> None:
    response = raw(guarded, f"GET {target} HTTP/1.1\nHost: localhost")
    assert response.status_code in (400, 401, 404), response.text
    absolute = raw(guarded, f"GET http://localhost{target} HTTP/1.1\nHost: localhost")
    assert absolute.status_code in (400, 401, 404)


@pytest.mark.parametrize(
    "header", ["X-Original-URI", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Accel-Redirect"]
)
def test_no_header_of_a_proxy_opens_anything(guarded: Sandbox, header: str) -> None:
    for value in ("/", "/static/app.js", "GET"):
        assert raw(guarded, f"POST /v1/shell/exec HTTP/1.1\nHost: localhost\n{header}: {value}").status_code == 401


# 3. Any file could be downloaded.


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "{root}/../../../../../../../../../../etc/passwd"]
)
def test_files_outside_are_out_of_reach(sandbox: Sandbox, path: str) -> None:
    wanted = path.format(root=sandbox.workspace)
    download = sandbox.client.get("/v1/file/download", params={"path": wanted})
    read = sandbox.client.post("/v1/file/read", json={"file": wanted})
    assert code(download) == code(read) == "path_outside"


def test_links_do_not_lead_outside(sandbox: Sandbox) -> None:
    link = sandbox.workspace / "link-to-etc"
    link.symlink_to("/etc")
    assert code(sandbox.client.get("/v1/file/download", params={"path": f"{link}/passwd"})) == "path_outside"


# 4. Credentials were shown. 6. The key was in the environment of every command.


def test_no_answer_shows_a_secret(guarded: Sandbox) -> None:
    for path in ("/v1/sandbox", "/v1/openapi.json", "/llms.txt", "/", "/v1/docs", "/auth", "/health"):
        for headers in (bearer(KEYS[0]), {}):
            shown = guarded.client.get(path, headers=headers).text
            assert not any(secret in shown for secret in (*KEYS, SECRET)), path


def test_settings_and_children_carry_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name, value in {
        "API_KEYS": KEYS[0],
        "JWT_SECRET": SECRET,
        "API_KEYS_FILE": "/keys",
        "ROOT": str(tmp_path),
    }.items():
        monkeypatch.setenv(f"SANDBOX_{name}", value)
    monkeypatch.delenv("SANDBOX_API_KEYS_FILE")
    settings = Settings()
    assert KEYS[0] not in json.dumps(settings.public()) + repr(settings) + str(child_environment(settings))
    assert SECRET not in json.dumps(settings.public()) + repr(settings) + str(child_environment(settings))


def test_a_command_finds_no_secret(guarded: Sandbox) -> None:
    command = "env; cat /proc/self/environ"
    answer = guarded.client.post("/v1/shell/exec", json={"command": command}, headers=bearer(KEYS[0]))
    assert answer.status_code == 200, answer.text
    output = answer.json()["data"]["output"]
    assert "PATH=" in output
    assert not any(secret in output for secret in (*KEYS, SECRET))


# 5. It listened everywhere without a key: tests/sandbox/test_access_serve.py.
# 7. What was downloaded was not verified.


def test_everything_installed_is_pinned_by_digest() -> None:
    lock = (REPOSITORY / "locks" / "sandbox.txt").read_text()
    pins = re.findall(r"^[a-z0-9_.\[\]-]+==\S+.*?(?=^[a-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert len(pins) > 20
    assert all("--hash=sha256:" in pin for pin in pins)
    packages = json.loads((REPOSITORY / "locks" / "web" / "package-lock.json").read_text())["packages"]
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)


# Beyond the audit


def test_every_route_asks(guarded: Sandbox) -> None:
    """By the document of the interface, so that a new route cannot be forgotten."""
    document = guarded.client.get("/v1/openapi.json", headers=bearer(KEYS[0])).json()
    routes = [(path, method) for path, methods in document["paths"].items() for method in methods]
    assert len(routes) > 1
    reading = {("/", "get"), ("/health", "get"), ("/robots.txt", "get"), ("/favicon.ico", "get")}
    for path, method in sorted(set(routes) - reading):
        assert guarded.client.request(method, re.sub(r"{[^}]*}", "1", path)).status_code == 401, (method, path)


def test_a_page_elsewhere_reaches_nothing(sandbox: Sandbox) -> None:
    """What the page of another site can send by a browser without asking first."""
    form = {"Content-Type": "text/plain", "Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
    document = sandbox.client.get("/v1/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            answer = sandbox.client.request(
                method, re.sub(r"{[^}]*}", "1", path), headers=form, content='{"command":"id"}'
            )
            assert answer.status_code == 403, (method, path)
    for path in ("/v1/shell/ws", "/websockify", "/cdp/devtools/browser/1", "/proxy/3000/"):
        origin: Any = "https://evil.test"
        assert knock(sandbox, path, origin=origin) == "foreign_origin"


def test_smuggled_requests_are_separate_requests(guarded: Sandbox) -> None:
    """Two lengths, or a length and chunks: refused, or read as one request; never a second one that skips the check."""
    for lines in ("Content-Length: 5\nContent-Length: 40", "Content-Length: 40\nTransfer-Encoding: chunked"):
        inner = "GET /auth HTTP/1.1\r\nHost: localhost\r\n\r\n"
        head = f"POST / HTTP/1.1\nHost: localhost\n{lines}\nConnection: close\n\n0\n\n{inner}"
        with socket.create_connection(("127.0.0.1", guarded.port)) as connection:
            connection.settimeout(10)
            connection.sendall(head.replace("\n", "\r\n").encode())
            answer = connection.recv(65536)
        assert b"200 OK" not in answer


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_what_it_writes_is_private(sandbox: Sandbox) -> None:
    assert (sandbox.root / ".cache" / "sandbox").stat().st_mode & 0o077 == 0
