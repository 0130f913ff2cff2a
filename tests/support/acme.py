"""A small certificate authority that speaks ACME (RFC 8555).

It checks every signature and nonce, really asks the domain for the challenge, and issues certificates. Where the
domain's name leads is told to it, as a resolver would.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

Json = dict[str, Any]


class Refusal(Exception):
    """An ACME problem document."""

    def __init__(self, kind: str, detail: str, status: int = 403) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}


@dataclass
class Order:
    domain: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    status: str = "pending"
    error: Json | None = None
    chain: str | None = None


@dataclass
class Authority:
    """The authority on a loopback port; use it as a context manager."""

    addresses: Mapping[str, tuple[str, int]]
    """Address and port that each name's challenge is fetched from."""
    lifetime: timedelta = timedelta(days=90)
    contacts: list[list[str]] = field(default_factory=list)
    """Of every account made."""
    orders: list[Order] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.certificate = self._issue(name, name, self.key.public_key(), timedelta(days=3650), None)
        self.nonces: set[str] = set()
        self.accounts: list[Json] = []

    def __enter__(self) -> Self:
        authority: Authority = self

        class Handler(_Handler):
            owner = authority

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def directory(self) -> str:
        return f"{self.url}/directory"

    @property
    def pem(self) -> str:
        """Its own certificate, for clients to trust."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def fetch(self, domain: str, token: str) -> str:
        """What the domain answers to its challenge.

        Raises:
            Refusal: there is no such name, nobody answers, or with something else.
        """
        if domain not in self.addresses:
            raise Refusal("dns", f"DNS problem: NXDOMAIN looking up A for {domain}", 400)
        host, port = self.addresses[domain]
        path = f"/.well-known/acme-challenge/{token}"
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", path, headers={"Host": domain})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise Refusal("unauthorized", f"{host}: Invalid response from http://{domain}{path}: {response.status}")
            return response.read(4096).decode().strip()
        except OSError as error:
            raise Refusal("connection", f"{host}: Fetching http://{domain}{path}: {error.strerror}", 400) from error
        finally:
            connection.close()

    def sign(self, order: Order, request: x509.CertificateSigningRequest) -> None:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if names.get_values_for_type(x509.DNSName) != [order.domain]:
            raise Refusal("badCSR", "The request names other domains than the order.", 400)
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        leaf = self._issue(x509.Name([]), self.certificate.subject, key, self.lifetime, order.domain)
        order.chain = leaf.public_bytes(serialization.Encoding.PEM).decode() + self.pem
        order.status = "valid"

    def _issue(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        lifetime: timedelta,
        domain: str | None,
    ) -> x509.Certificate:
        begin = datetime.now(UTC) - timedelta(minutes=5)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + lifetime)
            .add_extension(x509.BasicConstraints(ca=domain is None, path_length=None), critical=True)
        )
        if domain:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=True)
        return builder.sign(self.key, hashes.SHA256())


class _Handler(BaseHTTPRequestHandler):
    owner: Authority
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._reply(200, b"")

    def do_GET(self) -> None:
        if self.path == "/directory":
            names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order"}
            document = {name: f"{self.owner.url}/{path}" for name, path in names.items()}
            self._json({**document, "meta": {"termsOfService": f"{self.owner.url}/terms"}})
        else:
            self._reply(200 if self.path == "/nonce" else 404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            account, payload = self._opened(json.loads(body))
            self._answer(account, payload)
        except Refusal as refusal:
            self._json(refusal.document, refusal.status, kind="application/problem+json")

    def _opened(self, message: Json) -> tuple[int, Json | None]:
        """Index of the signer's account, and what was signed; a new signer gets the next index."""
        header = json.loads(_bytes(message["protected"]))
        if header["nonce"] not in self.owner.nonces:
            raise Refusal("badNonce", "The nonce is not one of ours, or was used.", 400)
        self.owner.nonces.remove(header["nonce"])
        if header["url"] != self.owner.url + self.path:
            raise Refusal("unauthorized", "The signed address is another one.")
        if "jwk" in header:
            key = header["jwk"]
            if key not in self.owner.accounts:
                self.owner.accounts.append(key)
            account = self.owner.accounts.index(key)
        else:
            account = int(header["kid"].rpartition("/")[2])
        _verify(
            self.owner.accounts[account], f"{message['protected']}.{message['payload']}", _bytes(message["signature"])
        )
        return account, json.loads(_bytes(message["payload"])) if message["payload"] else None

    def _answer(self, account: int, payload: Json | None) -> None:
        _, what, *rest = self.path.split("/")
        if what == "account":
            if not (payload or {}).get("termsOfServiceAgreed") and not rest:
                raise Refusal("userActionRequired", "The terms of service must be agreed to.")
            self.owner.contacts.append((payload or {}).get("contact", []))
            self._json({"status": "valid"}, 201, Location=f"{self.owner.url}/account/{account}")
            return
        if what == "order" and not rest:
            assert payload
            self.owner.orders.append(Order(payload["identifiers"][0]["value"]))
            self._order(len(self.owner.orders) - 1, 201)
            return
        index = int(rest[0])
        order = self.owner.orders[index]
        if what == "order":
            self._order(index)
        elif what == "authorization":
            self._json(self._authorization(index))
        elif what == "challenge":
            self._challenge(account, order)
            self._json(
                self._authorization(index)["challenges"][0], Link=f'<{self.owner.url}/authorization/{index}>;rel="up"'
            )
        elif what == "finalize":
            if order.status != "ready":
                raise Refusal("orderNotReady", f"The order is {order.status}.")
            assert payload
            self.owner.sign(order, x509.load_der_x509_csr(_bytes(payload["csr"])))
            self._order(index)
        elif what == "certificate" and order.chain:
            self._reply(200, order.chain.encode(), "application/pem-certificate-chain")
        else:
            raise Refusal("malformed", "There is no such resource.", 404)

    def _challenge(self, account: int, order: Order) -> None:
        thumbprint = hashlib.sha256(
            json.dumps(self.owner.accounts[account], sort_keys=True, separators=(",", ":")).encode()
        ).digest()
        try:
            if self.owner.fetch(order.domain, order.token) != f"{order.token}.{_text(thumbprint)}":
                raise Refusal("unauthorized", "The key authorization is another one.")
            order.status = "ready"
        except Refusal as refusal:
            order.status, order.error = "invalid", refusal.document

    def _authorization(self, index: int) -> Json:
        order = self.owner.orders[index]
        status = "valid" if order.status == "ready" else order.status
        challenge: Json = {
            "type": "http-01",
            "url": f"{self.owner.url}/challenge/{index}",
            "token": order.token,
            "status": status,
        }
        if order.error:
            challenge["error"] = order.error
        return {"identifier": {"type": "dns", "value": order.domain}, "status": status, "challenges": [challenge]}

    def _order(self, index: int, status: int = 200) -> None:
        order = self.owner.orders[index]
        document: Json = {
            "status": order.status,
            "identifiers": [{"type": "dns", "value": order.domain}],
            "authorizations": [f"{self.owner.url}/authorization/{index}"],
            "finalize": f"{self.owner.url}/finalize/{index}",
        }
        if order.chain:
            document["certificate"] = f"{self.owner.url}/certificate/{index}"
        self._json(document, status, Location=f"{self.owner.url}/order/{index}")

    def _json(self, document: Json, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        self._reply(status, json.dumps(document).encode(), kind, **headers)

    def _reply(self, status: int, body: bytes, kind: str = "text/plain", **headers: str) -> None:
        nonce = secrets.token_urlsafe(16)
        self.owner.nonces.add(nonce)
        self.send_response(status)
        for name, value in {"Replay-Nonce": nonce, "Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _verify(jwk: Json, signed: str, signature: bytes) -> None:
    """Check an account's signature (RS256).

    Raises:
        Refusal: it is another's.
    """
    exponent, modulus = (int.from_bytes(_bytes(jwk[part])) for part in ("e", "n"))
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    try:
        key.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Refusal("malformed", "The signature is wrong.", 400) from None


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
