"""HTTPS for a domain: real certbot against a certificate authority on loopback, and real nginx serving what it got."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from aisandbox.instance import files
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.guard.certificate import DNS_CHECK_S, RENEWAL_CHECK_S, Keeper, Wish
from aisandbox.instance.places import Places
from tests.gateway.stack import TEMPLATES, Gateway, running_gateway
from tests.gateway.upstream import ANSWER, Upstream
from tests.support.acme import Authority

DOMAIN = "ai.example.com"
KEY = "sk-0123456789abcdef"


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("https"), Choice(domain=DOMAIN)) as running:
        (running.manifest.paths.opt / "templates").symlink_to(TEMPLATES)
        places(running).gateway.mkdir()
        (running.www / "ready").touch()
        with Upstream(running.port("chat_upstream")), Upstream(running.port("api_upstream")):
            yield running


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The domain's name leads to loopback, for this process."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host in (DOMAIN, DOMAIN.encode()) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def authority(gateway: Gateway) -> Iterator[Authority]:
    with Authority({DOMAIN: ("127.0.0.1", gateway.port("http"))}) as running:
        yield running


@pytest.fixture
def keeper(gateway: Gateway) -> Keeper:
    return Keeper(places(gateway), gateway.manifest, gateway.reload)


@pytest.fixture
def outside() -> str:
    """An address of this machine that is not loopback, as callers from elsewhere have."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def places(gateway: Gateway) -> Places:
    return Places.of(gateway.manifest)


def wish(authority: Authority, **changes: Any) -> Wish:
    return Wish(**{"domain": DOMAIN, "email": "", "directory": authority.directory, "strict": True, **changes})


def report(gateway: Gateway) -> dict[str, Any]:
    found = files.read_json(places(gateway).status("certificate"))
    assert found
    return found


def client(gateway: Gateway, authority: Authority) -> httpx.Client:
    """Trusts the authority, and nobody else."""
    trust = ssl.create_default_context(cadata=authority.pem)
    return httpx.Client(verify=trust, base_url=f"https://{DOMAIN}:{gateway.port('https')}", timeout=20)


def serial(gateway: Gateway) -> str:
    """Of the certificate that is served."""
    address = f"127.0.0.1:{gateway.port('https')}"
    command = ["openssl", "s_client", "-connect", address, "-servername", DOMAIN]
    shown = subprocess.run(command, input="", capture_output=True, text=True, check=True, timeout=10).stdout
    return subprocess.run(
        ["openssl", "x509", "-noout", "-serial"], input=shown, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.usefixtures("resolves")
def test_chat_and_api_by_https(gateway: Gateway, authority: Authority, keeper: Keeper, outside: str) -> None:
    assert keeper.step(wish(authority, email="me@example.com")) == RENEWAL_CHECK_S
    assert authority.contacts == [["mailto:me@example.com"]]
    told = report(gateway)
    assert (told["state"], told["domain"]) == ("done", DOMAIN)
    assert told["message"].startswith(f"https://{DOMAIN}/ has a certificate that is valid until 20")
    left = datetime.fromisoformat(told["expires"]) - datetime.now(UTC)
    assert timedelta(days=89) < left < timedelta(days=90)
    with client(gateway, authority) as https:
        page = https.get("/")
        assert page.json()["path"] == "/"
        assert ["X-Forwarded-Proto", "https"] in page.json()["headers"]
        assert page.headers["Strict-Transport-Security"] == "max-age=86400"
        own = {"Origin": f"https://{DOMAIN}:{gateway.port('https')}"}
        assert https.post("/api/v1/chats/new", headers=own).status_code == 200
        assert https.post("/api/v1/chats/new", headers={"Origin": f"http://{DOMAIN}"}).status_code == 403
        # Another name that leads here gets neither.
        for path in ("/", "/v1/models"):
            assert https.get(path, headers={"Host": "rebind.evil.example"}).status_code == 421
        # The API under the same name, by its own rules.
        gateway.choose(Choice.model_validate({"api_key": KEY, "domain": DOMAIN}))
        refused = https.get("/v1/models")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        key = {"Authorization": f"Bearer {KEY}"}
        assert https.get("/v1/models", headers=key).json()["object"] == "list"
        assert https.get("/v1/load_lora_adapter", headers=key).json()["error"]["code"] == "unknown_url"
        asked = {"model": "x", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        moments = []
        with https.stream("POST", "/v1/chat/completions", json=asked, headers=key) as answer:
            for line in answer.iter_lines():
                moments += [time.monotonic()] if "content" in line else []
        assert len(moments) == len(ANSWER.split()) and moments[-1] - moments[0] > 0.3
    # HTTP/2, as browsers speak it, names the host in another way.
    for name, status in ((DOMAIN, "2 200"), ("rebind.evil.example", "2 421")):
        address = f"{name}:{gateway.port('https')}"
        command = ["curl", "--silent", "--insecure", "--http2", "--output", "/dev/null", f"https://{address}/"]
        command += ["--resolve", f"{address}:127.0.0.1", "--write-out", "%{http_version} %{http_code}"]
        assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout == status
    # Port 80 leads people there.
    address = f"https://{DOMAIN}:{gateway.port('https')}/c/1?q=2"
    for port in ("http", "chat"):
        sent = httpx.get(f"http://{outside}:{gateway.port(port)}/c/1?q=2")
        assert (sent.status_code, sent.headers["Location"]) == (307, address), port
    # Nobody's key travels in the clear, and who sent one is told.
    for path in ("/v1/models", "/health"):
        plain = httpx.get(f"http://{outside}:{gateway.port('api')}{path}", headers=key)
        assert (plain.status_code, plain.json()["error"]["code"]) == (403, "https_required")
        assert f"https://{DOMAIN}/v1" in plain.json()["error"]["message"]
    # SSH tunnels end on loopback, and are as good as ever.
    assert httpx.get(gateway.url("chat")).json()["path"] == "/"
    assert httpx.get(gateway.url("api", "/v1/models"), headers=key).status_code == 200


@pytest.mark.usefixtures("resolves")
def test_modern_tls_only(gateway: Gateway, authority: Authority, keeper: Keeper) -> None:
    keeper.step(wish(authority, strict=False))
    with client(gateway, authority) as https:
        assert "Strict-Transport-Security" not in https.get("/").headers
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port('https')}", "-servername", DOMAIN]
    weak = ["-cipher", "DEFAULT:@SECLEVEL=0"]
    for version, accepted in (("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        shaken = subprocess.run([*command, *weak, version], input=b"", capture_output=True, check=False, timeout=10)
        assert (shaken.returncode == 0) == accepted, version


@pytest.mark.usefixtures("resolves")
def test_it_renews_in_time_and_not_before(gateway: Gateway, authority: Authority, keeper: Keeper) -> None:
    keeper.step(wish(authority))
    first = serial(gateway)
    keeper.step(wish(authority))
    # Also after a restart, and on a new machine with the same data.
    Keeper(places(gateway), gateway.manifest, gateway.reload).step(wish(authority))
    assert (len(authority.orders), serial(gateway)) == (1, first)
    shutil.rmtree(places(gateway).tls)
    authority.lifetime = timedelta(days=20)
    keeper.step(wish(authority))
    second = serial(gateway)
    keeper.step(wish(authority))
    assert len(authority.orders) == 3
    assert len({first, second, serial(gateway)}) == 3


@pytest.mark.usefixtures("resolves")
def test_a_failed_renewal_takes_nothing_away(gateway: Gateway, authority: Authority, keeper: Keeper) -> None:
    authority.lifetime = timedelta(days=20)
    keeper.step(wish(authority))
    before = serial(gateway)
    authority.addresses = {}
    assert keeper.step(wish(authority)) == 300
    told = report(gateway)
    assert told["state"] == "done"
    assert "could not be renewed" in told["message"] and "NXDOMAIN" in told["message"]
    assert serial(gateway) == before


def test_a_name_that_leads_nowhere_is_waited_for(gateway: Gateway, authority: Authority, keeper: Keeper) -> None:
    assert keeper.step(wish(authority, domain="nowhere.invalid")) == DNS_CHECK_S
    told = report(gateway)
    assert told["state"] == "failed"
    assert told["message"].startswith("The name nowhere.invalid leads nowhere yet")
    assert told["message"].endswith("Until then chat and API are served without encryption.")
    assert "A record for nowhere.invalid" in told["fix"]
    assert authority.orders == []
    # Meanwhile the chat is where it was, and port 80 leads there.
    assert httpx.get(gateway.url("chat")).status_code == 200
    sent = httpx.get(gateway.url("http", "/c/1"))
    assert (sent.status_code, sent.headers["Location"]) == (307, gateway.url("chat", "/c/1"))


@pytest.mark.usefixtures("resolves")
def test_a_wrong_record_is_told_in_the_authoritys_words(
    gateway: Gateway, authority: Authority, keeper: Keeper, outside: str
) -> None:
    with Upstream(18199) as elsewhere:
        authority.addresses = {DOMAIN: ("127.0.0.1", elsewhere.port)}
        waits = [keeper.step(wish(authority)) for _ in range(2)]
    assert waits == [300, 600]
    told = report(gateway)
    assert told["state"] == "failed"
    assert told["message"].startswith(f"No certificate for {DOMAIN}: The key authorization is another one.")
    assert "systemctl restart aisandbox-certificate.service" in told["fix"]
    assert httpx.get(f"http://{outside}:{gateway.port('chat')}/").status_code == 200
    # The record is put right.
    authority.addresses = {DOMAIN: ("127.0.0.1", gateway.port("http"))}
    assert keeper.step(wish(authority)) == RENEWAL_CHECK_S
    assert report(gateway)["state"] == "done"


@pytest.mark.usefixtures("resolves")
def test_no_authority_can_be_reached(gateway: Gateway, authority: Authority, keeper: Keeper) -> None:
    assert keeper.step(wish(authority, directory="http://127.0.0.1:1/directory")) == 300
    assert "Connection refused" in report(gateway)["message"]


@pytest.mark.usefixtures("resolves")
def test_another_domain_and_none(gateway: Gateway, authority: Authority, keeper: Keeper, outside: str) -> None:
    keeper.step(wish(authority))
    other = f"other.{DOMAIN}"
    keeper.step(wish(authority, domain=other))
    # It leads nowhere: back to HTTP rather than to a name that is not chosen any more.
    assert httpx.get(f"http://{outside}:{gateway.port('chat')}/").status_code == 200
    assert report(gateway)["domain"] == other
    keeper.step(wish(authority))
    assert len(authority.orders) == 1
    keeper.forget()
    assert not places(gateway).status("certificate").exists()
    assert httpx.get(f"http://{outside}:{gateway.port('chat')}/").status_code == 200
    for port in ("http", "https"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.port(port)))


@pytest.mark.usefixtures("resolves")
def test_what_nginx_refuses_is_taken_back(
    gateway: Gateway, authority: Authority, keeper: Keeper, tmp_path: Path
) -> None:
    templates = gateway.manifest.paths.opt / "templates"
    templates.unlink()
    shutil.copytree(TEMPLATES, templates)
    site = templates / "nginx" / "https" / "chat-https.conf.j2"
    site.write_text(site.read_text() + "nonsense;")
    assert keeper.step(wish(authority)) == 300
    assert report(gateway)["message"].startswith("HTTPS could not be set up")
    assert sorted(path.name for path in places(gateway).gateway.glob("*.conf")) == ["http.conf"]
    gateway.reload()


def test_keys_are_roots_alone(gateway: Gateway, authority: Authority, keeper: Keeper, resolves: None) -> None:
    keeper.step(wish(authority))
    assert places(gateway).tls.stat().st_mode & 0o077 == 0
    key = places(gateway).tls / "live" / DOMAIN / "privkey.pem"
    assert key.resolve().stat().st_mode & 0o077 == 0
