"""Authentication off: only the caller's own machine and the sandbox's own pages may call."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from aisandbox.manifest import REPOSITORY
from sandbox_api.settings import Settings
from tests.sandbox.test_access import code, knock
from tests.support.sandbox import Sandbox, running


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """With names and origins allowed, and no proxy trusted."""
    settings = {
        "allowed_hosts": "box.test, *.boxes.test, [fd00::1]",
        "allowed_origins": "https://app.test/, http://localhost:3000, vscode-webview://panel",
        "trusted_proxies": "",
    }
    with running(tmp_path_factory.mktemp("named"), **settings) as started:
        yield started


def ask(sandbox: Sandbox, method: str = "GET", path: str = "/auth", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return sandbox.client.request(method, path, headers=named)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "localhost.", "a.b.localhost:1", "127.0.0.1:80", "127.9.9.9", "[::1]",
     "[0:0::1]:8080"],
)  # fmt: skip
def test_hosts_of_this_machine(sandbox: Sandbox, host: str) -> None:
    assert ask(sandbox, Host=host).json()["method"] == "none"


@pytest.mark.parametrize(
    "host",
    ["evil.test", "evil.test:8080", "127.0.0.1.evil.test", "localhost.evil.test", "notlocalhost", "10.0.0.1", "0.0.0.0",
     "[::]", "[fd00::1]", "8091-x", "localhost@evil.test", "evil.test/localhost", "localhost:80:80", "localhost:x", "",
     "[::1", "2130706433", "0x7f.1", "localhost localhost", "."],
)  # fmt: skip
def test_other_hosts_are_refused(sandbox: Sandbox, host: str) -> None:
    response = ask(sandbox, Host=host)
    assert response.status_code == 403
    assert code(response) == "foreign_host"
    assert "SANDBOX_ALLOWED_HOSTS" in response.json()["hint"] or "Host header" in response.json()["hint"]


def test_none_and_several_hosts_are_refused(sandbox: Sandbox) -> None:
    for lines in (b"", b"Host: localhost\r\nHost: evil.test\r\n"):
        with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
            connection.sendall(b"GET /auth HTTP/1.1\r\nConnection: close\r\n" + lines + b"\r\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        assert answer.split(b" ", 2)[1] in (b"400", b"403")


def test_a_forwarded_host_counts_too(sandbox: Sandbox, named: Sandbox) -> None:
    assert code(ask(sandbox, X_Forwarded_Host="evil.test")) == "foreign_host"
    assert ask(named, X_Forwarded_Host="evil.test").status_code == 200


def test_allowed_hosts(named: Sandbox) -> None:
    for host in ("box.test", "BOX.test:8443", "a.boxes.test", "[fd00:0::1]:80", "localhost"):
        assert ask(named, Host=host).status_code == 200, host
    for host in ("a.box.test", "boxes.test", "xboxes.test", "evil.test"):
        assert code(ask(named, Host=host)) == "foreign_host", host


def test_compose_names_the_setting_for_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other containers call the sandbox by the name of its service."""
    services = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
    assert list(services) == ["sandbox"]
    name = services["sandbox"]["environment"]["SANDBOX_ALLOWED_HOSTS"]
    assert name == "${ALLOWED_HOSTS:-}"
    assert "ALLOWED_HOSTS=sandbox docker compose up" in (REPOSITORY / "docs" / "container.md").read_text()
    with running(tmp_path, allowed_hosts="sandbox") as neighbour:
        assert ask(neighbour, Host="sandbox:8080").status_code == 200
    monkeypatch.setenv("SANDBOX_ALLOWED_HOSTS", "")
    assert Settings().allowed_hosts == (), "as Compose gives it where nothing is chosen"


def test_a_websocket_with_a_foreign_host_is_refused(sandbox: Sandbox) -> None:
    evil: Any = {"additional_headers": {"Host": "evil.test"}}
    # The client adds its own Host header as well; two are refused, too.
    assert knock(sandbox, "/v1/shell/ws", **evil) == "foreign_host"


def test_own_pages_may_call(sandbox: Sandbox) -> None:
    for name in ("127.0.0.1", "localhost"):
        own = f"{name}:{sandbox.port}"
        assert ask(sandbox, "POST", "/tickets", Host=own, Origin=f"http://{own}").status_code == 200
    assert ask(sandbox, Host="localhost", Origin="http://localhost:80").status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.test", "null", "http://localhost", "http://localhost:1", "https://127.0.0.1:{port}", "", "file://",
     "http://localhost:{port}", "http://127.0.0.1:{port}.evil.test", "http://evil.test@127.0.0.1:{port}",
     "http://127.0.0.1:{port}/x", "chrome-extension://abc"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_pages_may_not(sandbox: Sandbox, origin: str, method: str) -> None:
    response = ask(sandbox, method, "/tickets", Origin=origin.format(port=sandbox.port))
    assert response.status_code == 403
    assert code(response) == "foreign_origin"
    assert "access-control-allow-origin" not in response.headers


def test_two_origins_are_refused(sandbox: Sandbox) -> None:
    headers = [("Origin", sandbox.url), ("Origin", "https://evil.test")]
    assert code(sandbox.client.get("/auth", headers=headers)) == "foreign_origin"


def test_websockets_of_other_pages_are_refused(sandbox: Sandbox, named: Sandbox) -> None:
    origins: dict[str, tuple[Any, Any]] = {"own": (sandbox.url, named.url), "other": ("https://evil.test", "null")}
    for server, own, other in zip((sandbox, named), origins["own"], origins["other"], strict=True):
        assert knock(server, "/v1/shell/ws") == "let through"
        assert knock(server, "/v1/shell/ws", origin=own) == "let through"
        assert knock(server, "/v1/shell/ws", origin=other) == "foreign_origin"
    allowed: Any = "https://app.test"
    assert knock(named, "/v1/shell/ws", origin=allowed) == "let through"


def test_allowed_origins(named: Sandbox) -> None:
    for origin in ("https://app.test", "https://app.test:443", "http://localhost:3000", "vscode-webview://panel"):
        answer = ask(named, "POST", "/tickets", Origin=origin)
        assert answer.status_code == 200, origin
        assert answer.headers["access-control-allow-origin"] == origin
    for origin in ("http://app.test", "https://app.test:444", "https://x.app.test", "vscode-webview://other"):
        assert code(ask(named, "POST", "/tickets", Origin=origin)) == "foreign_origin"


def test_preflights_without_authentication(sandbox: Sandbox, named: Sandbox) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    assert named.client.options("/v1/shell/exec", headers={**asked, "Origin": "https://app.test"}).status_code == 204
    refused = sandbox.client.options("/v1/shell/exec", headers={**asked, "Origin": "https://app.test"})
    assert code(refused) == "foreign_origin"


def test_the_address_behind_a_trusted_proxy_is_the_own_origin(sandbox: Sandbox, named: Sandbox) -> None:
    behind = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "localhost:8443", "Origin": "https://localhost:8443"}
    assert ask(sandbox, "POST", "/tickets", **behind).status_code == 200
    assert code(ask(named, "POST", "/tickets", **behind)) == "foreign_origin"
    assert code(ask(sandbox, "POST", "/tickets", **behind | {"Origin": sandbox.url})) == "foreign_origin"


VISIT = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


def test_links_from_other_sites_lead_to_pages_only(sandbox: Sandbox) -> None:
    for path in ("/", "/vnc/index.html", "/jupyter", "/v1/docs", "/proxy/3000/"):
        assert ask(sandbox, path=path, **VISIT).status_code != 403, path
    for path in ("/v1/sandbox", "/v1/file/download?path=/x", "/mcp", "/cdp/json/new", "/json/new", "/auth", "/v1"):
        assert code(ask(sandbox, path=path, **VISIT)) == "foreign_origin", path


def test_other_sites_cannot_embed(sandbox: Sandbox) -> None:
    for change in ({"Sec_Fetch_Dest": "iframe"}, {"Sec_Fetch_Dest": "image", "Sec_Fetch_Mode": "no-cors"}):
        assert code(ask(sandbox, path="/vnc/", **VISIT | change)) == "foreign_origin"
    assert code(ask(sandbox, "POST", "/", **VISIT)) == "foreign_origin"
    for site in ("none", "same-origin", "same-site"):
        assert ask(sandbox, Sec_Fetch_Site=site).status_code == 200


def test_allowed_origins_may_embed(named: Sandbox) -> None:
    frame = VISIT | {"Sec_Fetch_Dest": "iframe"}
    assert ask(named, path="/vnc/", **frame, Referer="https://app.test/page").status_code != 403
    assert code(ask(named, path="/vnc/", **frame, Referer="https://evil.test/https://app.test")) == "foreign_origin"
