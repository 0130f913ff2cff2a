"""Credentials: API keys, tokens, tickets and the cookies of pages."""

from __future__ import annotations

import asyncio
import http.server
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import agent_sandbox
import httpx
import jwt
import pytest
from agent_sandbox.core.api_error import ApiError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from playwright.sync_api import expect
from pydantic import SecretStr
from starlette.requests import HTTPConnection
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from sandbox_api.access.attempts import FREE, LONGEST_S, MOST_ADDRESSES, Attempts
from sandbox_api.access.service import AccessService
from sandbox_api.access.tokens import InvalidTokenError, Tokens
from sandbox_api.errors import SandboxError
from sandbox_api.settings import Settings
from tests.support import chromium
from tests.support.sandbox import Sandbox, running

KEYS = ("first-key-of-the-tests", "second-key-of-the-tests")
SECRET = "a secret of the tests, with more than thirty-two bytes"
AUDIENCE, ISSUER = "sandbox", "https://issuer.test"
ALLOWED = "https://app.test"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
Verdict = Callable[..., str]


def pem(key: rsa.RSAPrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


class Publisher:
    """A JWKS address with the keys that a test gives it."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.requests = 0
        publisher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.requests += 1
                body = json.dumps({"keys": [publisher.jwk(name) for name in publisher.keys]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks.json"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def jwk(self, name: str) -> dict[str, Any]:
        key = jwt.algorithms.RSAAlgorithm.to_jwk(self.keys[name].public_key(), as_dict=True)
        return {**key, "kid": name, "use": "sig", "alg": "RS256"}


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> Iterator[Sandbox]:
    settings = {
        "auth": "1",
        "api_keys": ",".join(KEYS),
        "jwt_secret": SECRET,
        "jwt_public_key": pem(PRIVATE).replace("\n", "\\n"),
        "jwks_url": publisher.url,
        "jwt_audience": AUDIENCE,
        "jwt_issuer": ISSUER,
        "allowed_origins": ALLOWED,
        "ticket_ttl_s": "2",
    }
    with running(tmp_path_factory.mktemp("guarded"), **settings) as started:
        yield started


ADDRESSES = itertools.count(1)


@pytest.fixture(autouse=True)
def own_address(guarded: Sandbox) -> None:
    """Wrong keys slow down whoever comes from the same address: each test has one of its own."""
    guarded.client.headers["X-Forwarded-For"] = f"192.0.2.{next(ADDRESSES)}"


def token(key: Any, algorithm: str, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    usual = {"sub": "ann", "aud": AUDIENCE, "iss": ISSUER, "exp": datetime.now(UTC) + timedelta(minutes=5)}
    wanted = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.encode(wanted, key, algorithm, headers)


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def who(sandbox: Sandbox, **headers: str) -> dict[str, str]:
    response = sandbox.client.get("/auth", headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert response.status_code == 200, response.text
    answer: dict[str, str] = response.json()
    return answer


def code(response: httpx.Response) -> str:
    body = response.json()
    assert body["success"] is False
    assert body["error"]["trace_id"] == response.headers["x-trace-id"]
    name: str = body["error"]["code"]
    return name


def knock(sandbox: Sandbox, path: str, **options: Any) -> str:
    """The guard's verdict on a websocket: an error code, or `let through` (whatever there is behind)."""
    try:
        with connect(f"ws://127.0.0.1:{sandbox.port}{path}", **options):
            return "let through"
    except InvalidStatus as error:
        if b'"trace_id"' not in error.response.body:
            return "let through"
        body = json.loads(error.response.body)
        assert error.response.status_code == {"unauthorized": 401}.get(body["error"]["code"], 403)
        answer: str = body["error"]["code"]
        return answer


def ticket(sandbox: Sandbox, path: str | None = None) -> str:
    response = sandbox.client.post("/tickets", json={"path": path} if path else None, headers=bearer(KEYS[0]))
    assert response.status_code == 200, response.text
    value: str = response.json()["data"]["ticket"]
    return value


# Without a credential


@pytest.mark.parametrize(
    "path",
    ["/v1/sandbox", "/v1/openapi.json", "/v1/docs", "/v1/nothing", "/mcp", "/vnc/index.html", "/jupyter", "/terminal",
     "/code-server/", "/proxy/3000/", "/cdp/json/version", "/auth", "/llms.txt", "/static/../v1/sandbox", "/staticx",
     "//", "/v1/sandbox/", "/health/x"],
)  # fmt: skip
def test_every_path_needs_a_credential(guarded: Sandbox, path: str) -> None:
    # httpx would resolve the dot segments.
    url = httpx.URL(guarded.url).copy_with(raw_path=path.encode())
    response = guarded.client.request("GET", url)
    assert response.status_code == 401
    assert code(response) == "unauthorized"
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/favicon.ico", "/robots.txt", "/health"])
def test_what_holds_no_data_is_open_for_reading(guarded: Sandbox, path: str) -> None:
    assert guarded.client.get(path).status_code in (200, 404)
    assert guarded.client.post(path).status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_every_method_needs_a_credential(guarded: Sandbox, method: str) -> None:
    assert guarded.client.request(method, "/v1/shell/exec").status_code == 401


def test_a_websocket_needs_a_credential(guarded: Sandbox) -> None:
    for path in ("/v1/shell/ws", "/websockify", "/cdp/devtools/browser/x", "/proxy/3000/ws", "/", "/static/x"):
        assert knock(guarded, path) == "unauthorized"
    assert knock(guarded, "/v1/shell/ws", additional_headers={"X-API-Key": "wrong"}) == "unauthorized"
    assert knock(guarded, "/v1/shell/ws", additional_headers={"X-API-Key": KEYS[0]}) == "let through"
    assert knock(guarded, "/v1/shell/ws", additional_headers=bearer(token(SECRET, "HS256"))) == "let through"


# API keys


def test_each_key_is_accepted_in_each_place(guarded: Sandbox) -> None:
    for key in KEYS:
        assert who(guarded, X_API_Key=key)["method"] == "api_key"
        assert who(guarded, X_AIO_API_Key=key)["method"] == "api_key"
        assert who(guarded, **bearer(key))["method"] == "api_key"
        assert who(guarded, Authorization=f"bearer {key}")["method"] == "api_key"


@pytest.mark.parametrize("key", ["x", KEYS[0][:-1], KEYS[0] + "x", ",".join(KEYS), KEYS[0].upper(), "ключ"])
def test_other_keys_are_refused(guarded: Sandbox, key: str) -> None:
    for name, value in (("X-API-Key", key), ("Authorization", f"Bearer {key}")):
        headers = [(name.encode(), value.encode())]
        assert guarded.client.get("/auth", headers=headers).status_code == 401
    assert guarded.client.get("/auth", params={"api_key": KEYS[0]}).status_code == 401
    assert guarded.client.get("/auth", auth=("user", KEYS[0])).status_code == 401


def test_any_good_credential_is_enough(guarded: Sandbox) -> None:
    assert who(guarded, Authorization="Bearer of-another-program", X_API_Key=KEYS[0])["method"] == "api_key"


def test_the_peers_client(guarded: Sandbox) -> None:
    client = agent_sandbox.Sandbox(base_url=guarded.url, headers=bearer(KEYS[0]))
    assert client.auth.authenticate()["status"] == "ok"
    answer = client.auth.create_ticket()
    assert answer["expires_in"] == 2
    assert guarded.client.get("/auth", params={"ticket": str(answer["ticket"])}).status_code == 200
    with pytest.raises(ApiError) as refused:
        agent_sandbox.Sandbox(base_url=guarded.url).auth.authenticate()
    assert refused.value.status_code == 401


# Tokens


def test_tokens_of_each_kind(guarded: Sandbox, publisher: Publisher) -> None:
    assert who(guarded, **bearer(token(SECRET, "HS256"))) == {
        "status": "ok", "method": "jwt", "subject": "ann", "path": "/",
    }  # fmt: skip
    assert who(guarded, **bearer(token(PRIVATE, "RS256")))["subject"] == "ann"
    publisher.keys = {"one": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
    time.sleep(2)
    assert who(guarded, **bearer(token(publisher.keys["one"], "RS256", {"kid": "one"})))["subject"] == "ann"


def test_published_keys_rotate_and_are_fetched_sparingly(guarded: Sandbox, publisher: Publisher) -> None:
    first, second = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    publisher.keys = {"a": first}
    time.sleep(2)
    assert who(guarded, **bearer(token(first, "RS256", {"kid": "a"})))["subject"] == "ann"
    publisher.keys, before = {"b": second}, publisher.requests
    time.sleep(2)
    assert who(guarded, **bearer(token(second, "RS256", {"kid": "b"})))["subject"] == "ann"
    assert publisher.requests == before + 1
    for number in range(20):
        made_up = bearer(token(second, "RS256", {"kid": f"made-up-{number}"}))
        assert guarded.client.get("/auth", headers=made_up).status_code == 401
    assert publisher.requests <= before + 2
    assert guarded.client.get("/auth", headers=bearer(token(first, "RS256", {"kid": "a"}))).status_code == 401


def _hmac_with_the_public_key() -> str:
    """The classic confusion: a public key taken for the secret of HS256. PyJWT refuses to make such a token."""
    head, body = (jwt.utils.base64url_encode(json.dumps(part).encode()) for part in (
        {"alg": "HS256", "typ": "JWT"}, {"sub": "eve", "aud": AUDIENCE, "iss": ISSUER}
    ))  # fmt: skip
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = jwt.utils.base64url_encode(algorithm.sign(head + b"." + body, pem(PRIVATE).encode()))
    return b".".join((head, body, signature)).decode()


def test_bad_tokens_are_refused(guarded: Sandbox) -> None:
    now = datetime.now(UTC)
    good = token(SECRET, "HS256")
    bad = {
        "another secret": token(SECRET[::-1], "HS256"),
        "another key": token(rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
        "no signature": token(None, "none"),
        "signature cut off": good.rsplit(".", 1)[0] + ".",
        "key taken for a secret": _hmac_with_the_public_key(),
        "other hash": token(SECRET * 2, "HS512"),
        "other hash, RSA": token(PRIVATE, "RS512"),
        "other curve": token(ec.generate_private_key(ec.SECP256R1()), "ES256"),
        "expired": token(SECRET, "HS256", exp=now - timedelta(minutes=1)),
        "not yet": token(SECRET, "HS256", nbf=now + timedelta(minutes=1)),
        "other audience": token(SECRET, "HS256", aud="other"),
        "no audience": token(SECRET, "HS256", aud=None),
        "other issuer": token(SECRET, "HS256", iss="https://other.test"),
        "no issuer": token(SECRET, "HS256", iss=None),
        "no end": token(SECRET, "HS256", exp=None),
        "no token": "a.b.c",
        "dots": "..",
    }
    for name, value in bad.items():
        response = guarded.client.get("/auth", headers=bearer(value))
        assert response.status_code == 401, name
        assert value not in response.text
    assert guarded.client.get("/auth", headers=bearer(good)).status_code == 200


def test_tokens_for_others_where_no_audience_is_set(tmp_path: Path) -> None:
    """A publisher of keys signs tokens for many programs; without a name of our own, none of them is for us."""
    tokens = Tokens(Settings(root=tmp_path, jwt_secret=SecretStr(SECRET)))
    assert asyncio.run(tokens.subject(token(SECRET, "HS256", aud=None))) == "ann"
    with pytest.raises(InvalidTokenError, match="SANDBOX_JWT_AUDIENCE"):
        asyncio.run(tokens.subject(token(SECRET, "HS256")))


# Guesses


class Guesser:
    """Sends wrong credentials to a service whose clock stands still, and remembers how long it was made to wait."""

    def __init__(self, root: Path) -> None:
        self.now, self.waited = 0.0, 0.0
        settings = Settings(root=root, auth=True, api_keys=(SecretStr(KEYS[0]),))
        self.service = AccessService(settings)
        self.service._attempts = Attempts(settings, lambda: self.now, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waited += seconds

    def tries(self, key: str, address: str = "192.0.2.1", **headers: str) -> bool:
        """Whether the key is accepted."""
        given = {"x-api-key": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        pairs = [(name.encode(), value.encode()) for name, value in given.items()]
        connection = HTTPConnection({"type": "http", "path": "/auth", "headers": pairs, "client": (address, 1)})
        try:
            asyncio.run(self.service.authenticate(connection, "cookie"))
        except SandboxError as error:
            assert error.code == "unauthorized"
            return False
        return True

    def wait_of(self, *try_: str, **headers: str) -> float:
        before = self.waited
        self.tries(*try_, **headers)
        return self.waited - before


@pytest.fixture
def guesser(tmp_path: Path) -> Guesser:
    return Guesser(tmp_path)


def test_guesses_are_slowed(guesser: Guesser) -> None:
    for _ in range(FREE):
        assert not guesser.tries("wrong")
    assert guesser.waited == 0, "a few mistakes are free"
    for number in range(100):
        guesser.tries(f"wrong-{number}")
    # Right and wrong ones alike: who need not wait would know at once.
    assert guesser.wait_of("wrong") == guesser.wait_of(KEYS[0]) == LONGEST_S
    guesser.now = 1000
    assert guesser.wait_of(KEYS[0]) == 0


def test_the_owner_is_never_shut_out(guesser: Guesser) -> None:
    for number in range(200):
        guesser.tries(f"wrong-{number}")
    assert guesser.tries(KEYS[0]), "from the address of the guesses: slowly"
    assert guesser.wait_of(KEYS[0], "192.0.2.2") == 0, "from another: at once"


def test_guesses_are_counted_where_they_come_from(guesser: Guesser) -> None:
    """Behind a proxy that is trusted by its word, else by the connection; in IPv6 by network."""
    for number in range(200):
        guesser.tries("wrong", "127.0.0.1", x_forwarded_for=f"10.1.1.{number}, 198.51.100.1")
        guesser.tries("wrong", "203.0.113.1", x_forwarded_for=f"10.1.1.{number}")
        guesser.tries("wrong", f"2001:db8::{number:x}")
    assert guesser.wait_of("wrong", "127.0.0.1", x_forwarded_for="198.51.100.1") == LONGEST_S
    assert guesser.wait_of("wrong", "203.0.113.1") == LONGEST_S
    assert guesser.wait_of("wrong", "2001:db8::ffff") == LONGEST_S
    for own in ("127.0.0.1", "198.51.100.2", "2001:db8:0:1::1", "10.1.1.1"):
        assert guesser.wait_of("wrong", own) == 0
    assert guesser.wait_of("wrong", "127.0.0.1", x_forwarded_for="10.1.1.1") == 0


def test_what_cannot_be_guessed_is_not_slowed(guesser: Guesser) -> None:
    """Cookies and tickets, and requests that bring nothing: pages ask with them by themselves."""
    connection = HTTPConnection(
        {"type": "http", "path": "/auth", "headers": [(b"cookie", b"cookie=old")], "client": ("192.0.2.1", 1)}
    )
    for _ in range(200):
        for ticket_ in (None, "used"):
            with pytest.raises(SandboxError):
                asyncio.run(guesser.service.authenticate(connection, "cookie", ticket_))
    assert guesser.wait_of(KEYS[0]) == 0


def test_the_first_message_of_a_websocket_is_slowed(guesser: Guesser) -> None:
    connection = HTTPConnection({"type": "websocket", "path": "/", "headers": [], "client": ("192.0.2.1", 1)})
    for number in range(100):
        with pytest.raises(SandboxError):
            asyncio.run(guesser.service.vouch(connection, f"wrong-{number}"))
    assert guesser.wait_of(KEYS[0]) == LONGEST_S


def test_a_request_holds_few_guesses(guarded: Sandbox) -> None:
    headers = [("X-API-Key", "wrong")] * 5 + [("X-API-Key", KEYS[0])]
    assert guarded.client.get("/auth", headers=headers).status_code == 401


def test_addresses_are_remembered_within_bounds(guesser: Guesser) -> None:
    attempts = guesser.service._attempts
    for number in range(MOST_ADDRESSES + 10):
        scope = {"type": "http", "headers": [], "client": (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)}
        attempts.failed(HTTPConnection(scope))
    assert len(attempts._paid_off) == MOST_ADDRESSES


# Tickets and cookies


def test_a_ticket_works_once(guarded: Sandbox) -> None:
    value = ticket(guarded)
    assert guarded.client.get("/auth", params={"ticket": value}).json()["method"] == "ticket"
    assert guarded.client.get("/auth", params={"ticket": value}).status_code == 401
    value = ticket(guarded)
    assert knock(guarded, f"/v1/shell/ws?ticket={value}") == "let through"
    assert knock(guarded, f"/v1/shell/ws?ticket={value}") == "unauthorized"


def test_a_ticket_expires(guarded: Sandbox) -> None:
    value = ticket(guarded)
    time.sleep(2.2)
    assert guarded.client.get("/auth", params={"ticket": value}).status_code == 401


def test_a_ticket_is_for_its_path_and_for_reading(guarded: Sandbox) -> None:
    for place in ("/auth", "/vnc-other/", "/vnc/../auth", "/v1/sandbox"):
        url = httpx.URL(guarded.url).copy_with(raw_path=f"{place}?ticket={ticket(guarded, '/vnc/')}".encode())
        assert guarded.client.get(url).status_code == 401
    assert guarded.client.post("/v1/shell/exec", params={"ticket": ticket(guarded)}, json={}).status_code == 401
    assert guarded.client.post("/tickets", params={"ticket": ticket(guarded)}).status_code == 401


def test_ticket_requests_are_checked(guarded: Sandbox) -> None:
    for path in ("vnc", "", "/a b", "/a?b", "/" + "a" * 600, 5, "https://evil.test"):
        response = guarded.client.post("/tickets", json={"path": path}, headers=bearer(KEYS[0]))
        assert response.status_code == 422
    response = guarded.client.post("/tickets", json={"path": "/vnc/../v1"}, headers=bearer(KEYS[0]))
    assert code(response) == "invalid_request"


def test_unused_tickets_are_bounded(tmp_path: Any) -> None:
    with running(tmp_path, auth="1", api_keys=KEYS[0], ticket_ttl_s="600") as sandbox:
        statuses = [sandbox.client.post("/tickets", headers=bearer(KEYS[0])).status_code for _ in range(1002)]
    assert statuses == [200] * 1000 + [429] * 2


def test_a_page_exchanges_its_ticket_for_a_cookie(guarded: Sandbox) -> None:
    with httpx.Client(base_url=guarded.url) as browser:
        opened = browser.get("/vnc/index.html", params={"a": "1 2", "ticket": ticket(guarded), "b": ""})
        assert opened.status_code == 303
        place = urlsplit(urljoin(str(opened.url), opened.headers["location"]))
        assert place.path == "/vnc/index.html"
        assert parse_qs(place.query, keep_blank_values=True) == {"a": ["1 2"], "b": [""]}
        assert opened.headers["cache-control"] == "no-store"
        assert opened.headers["referrer-policy"] == "no-referrer"
        for cookie in opened.headers.get_list("set-cookie"):
            assert "HttpOnly" in cookie
            assert "SameSite=strict" in cookie
            assert "Secure" not in cookie
        for path in ("/vnc/index.html", "/vnc/core/rfb.js", "/websockify"):
            assert browser.get(path).status_code != 401
        for path in ("/v1/sandbox", "/jupyter", "/auth", "/vncx"):
            assert browser.get(path).status_code == 401
        # The value holds only where it was made for, whatever a browser sends along.
        value = next(cookie.value for cookie in browser.cookies.jar if cookie.path == "/vnc")
        stolen = {"Cookie": f"sandbox-{guarded.port}={value}"}
        assert guarded.client.get("/auth", headers=stolen).status_code == 401
        assert guarded.client.get("/vnc/x", headers=stolen).status_code != 401
        assert guarded.client.get("/vnc/x", headers={"Cookie": stolen["Cookie"] + "0"}).status_code == 401
        # Going back to the address with the used ticket shows the page again.
        assert browser.get("/vnc/index.html", params={"ticket": "used"}).status_code == 303
    assert guarded.client.get("/vnc/index.html", params={"ticket": "used"}).status_code == 401


@pytest.mark.parametrize(
    "page, reached, refused",
    [
        ("/terminal", ["/terminal", "/v1/shell/ws"], ["/v1/shell/exec", "/v1/sandbox"]),
        ("/jupyter", ["/jupyter/lab", "/jupyter/api/kernels"], ["/code-server/"]),
        ("/code-server/", ["/code-server/x"], ["/jupyter"]),
        ("/proxy/3000/app", ["/proxy/3000/other"], ["/proxy/3001/", "/proxy/30000/", "/proxy/"]),
        ("/v1/docs", ["/v1/docs", "/v1/openapi.json"], ["/v1/sandbox"]),
        ("/", ["/auth", "/v1/sandbox", "/vnc/", "/v1/openapi.json"], []),
    ],
)
def test_the_reach_of_each_page(guarded: Sandbox, page: str, reached: list[str], refused: list[str]) -> None:
    with httpx.Client(base_url=guarded.url) as browser:
        assert browser.get(page, params={"ticket": ticket(guarded)}).status_code == 303
        for path in reached:
            assert browser.get(path).status_code != 401, path
        for path in refused:
            assert browser.get(path).status_code == 401, path


def test_a_cookie_opens_websockets_of_its_own_pages_only(guarded: Sandbox) -> None:
    with httpx.Client(base_url=guarded.url) as browser:
        browser.get("/terminal", params={"ticket": ticket(guarded)})
        value = next(cookie.value for cookie in browser.cookies.jar if cookie.path == "/v1/shell/ws")
    headers: Any = {"Cookie": f"theme=dark; sandbox-{guarded.port}={value}"}
    own: Any = guarded.url
    assert knock(guarded, "/v1/shell/ws", additional_headers=headers) == "let through"
    assert knock(guarded, "/v1/shell/ws", additional_headers=headers, origin=own) == "let through"
    assert knock(guarded, "/websockify", additional_headers=headers, origin=own) == "unauthorized"
    foreign: Any = "https://evil.test"
    assert knock(guarded, "/v1/shell/ws", additional_headers=headers, origin=foreign) == "foreign_origin"


def test_a_cookie_cannot_be_used_from_another_site(guarded: Sandbox) -> None:
    with httpx.Client(base_url=guarded.url) as browser:
        assert browser.get("/", params={"ticket": ticket(guarded)}).status_code == 303
        assert browser.post("/tickets").status_code == 200
        assert browser.post("/tickets", headers={"Origin": guarded.url}).status_code == 200
        assert browser.post("/tickets", headers={"Origin": ALLOWED}).status_code == 200
        for origin in ("https://evil.test", "null", f"http://localhost:{guarded.port}", "http://127.0.0.1"):
            assert code(browser.post("/tickets", headers={"Origin": origin})) == "foreign_origin"
        assert browser.get("/auth", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_cookie_gives_no_ticket_that_reaches_further(guarded: Sandbox) -> None:
    with httpx.Client(base_url=guarded.url) as browser:
        browser.get("/", params={"ticket": ticket(guarded)})
        assert browser.post("/tickets", json={"path": "/vnc"}).json()["data"]["path"] == "/vnc"
        browser.cookies.clear()
        browser.get("/vnc/", params={"ticket": ticket(guarded)})
        assert browser.post("/tickets", json={"path": "/vnc"}).status_code == 401


def test_behind_https_and_a_prefix(guarded: Sandbox) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "box.test", "X-Forwarded-Prefix": "/sandbox"}
    made = guarded.client.post("/tickets", json={"path": "/vnc/"}, headers={**headers, **bearer(KEYS[0])}).json()[
        "data"
    ]
    assert made["url"] == f"https://box.test/sandbox/vnc/?ticket={made['ticket']}"
    opened = guarded.client.get("/vnc/", params={"ticket": made["ticket"]}, headers=headers)
    guarded.client.cookies.clear()
    assert urljoin("/sandbox/vnc/", opened.headers["location"]) == "/sandbox/vnc/"
    cookies = opened.headers.get_list("set-cookie")
    assert all("Secure" in cookie and cookie.startswith("sandbox-443=") for cookie in cookies)
    assert any("Path=/sandbox/vnc;" in cookie for cookie in cookies)


def test_a_link_from_another_site_opens_the_page(guarded: Sandbox) -> None:
    """In Chromium: a click on another site, the terminal's page by cookie, its files and its websocket."""
    with chromium.running() as browser, chromium.new_page(browser) as page:
        address = f"http://localhost:{guarded.port}/terminal?ticket={ticket(guarded)}"
        page.route("http://other.test/", lambda route: route.fulfill(
            body=f'<a href="{address}">open</a>', content_type="text/html"
        ))  # fmt: skip
        refused: list[str] = []
        page.on("response", lambda answer: refused.append(answer.url) if answer.status in (401, 403) else None)
        page.goto("http://other.test/")
        page.get_by_text("open").click()
        # What is typed before the prompt is there reaches nobody.
        expect(page.locator(".xterm-rows")).to_contain_text(re.compile("[$#] "))
        page.locator(".xterm").click()
        page.keyboard.type("echo by cookie")
        # The terminal's echo: the keys went there and came back over the websocket.
        expect(page.locator(".xterm-rows")).to_contain_text("echo by cookie")
        assert "ticket" not in page.url
        assert not refused
        assert page.evaluate("fetch('/auth').then(answer => answer.status)") == 401
        assert page.evaluate("document.cookie") == ""


# Pages of other origins


def test_preflights(guarded: Sandbox) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = guarded.client.options("/v1/shell/exec", headers={**asked, "Origin": ALLOWED})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers
    refused = guarded.client.options("/v1/shell/exec", headers={**asked, "Origin": "https://evil.test"})
    assert code(refused) == "foreign_origin"
    assert "access-control-allow-origin" not in refused.headers
    used = guarded.client.get("/auth", headers={"Origin": ALLOWED, **bearer(KEYS[0])})
    assert used.headers["access-control-allow-origin"] == ALLOWED
    assert "Origin" in used.headers["vary"]
    assert "access-control-allow-origin" not in guarded.client.get("/auth", headers=bearer(KEYS[0])).headers


def test_nothing_secret_is_logged(guarded: Sandbox) -> None:
    value = ticket(guarded)
    guarded.client.get("/auth", headers={"X-API-Key": "a-wrong-key"})
    guarded.client.get("/auth", headers=bearer("a-wrong-token"))
    answer = guarded.client.get("/auth", params={"ticket": value + "x"})
    guarded.client.get("/vnc/", params={"ticket": value})
    guarded.client.cookies.clear()
    knock(guarded, f"/v1/shell/ws?ticket={ticket(guarded)}&mark=of-the-query")
    log = guarded.log.read_text()
    for secret in (*KEYS, SECRET, value, "a-wrong-key", "a-wrong-token", "of-the-query"):
        assert secret not in log
    refusals = [json.loads(line) for line in log.splitlines() if '"refused"' in line]
    refusal = next(line for line in refusals if line["trace_id"] == answer.headers["x-trace-id"])
    assert refusal["code"] == "unauthorized"
    assert refusal["address"] == "127.0.0.1"
