"""An HTTPS server whose certificate is not valid today, as one looks to a machine whose clock is wrong."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@contextmanager
def running(folder: Path, first: int, last: int, bind: str = "127.0.0.1") -> Iterator[tuple[str, Path]]:
    """A server with a certificate of its own from one year to another; its address and its certificate."""
    certificate, both = folder / "certificate.pem", folder / "both.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    certificate.write_bytes(_certificate(key, bind, first, last).public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both.write_bytes(private + certificate.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    with http.server.ThreadingHTTPServer((bind, 0), http.server.BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"https://{bind}:{server.server_address[1]}", certificate
        server.shutdown()


def _certificate(key: ec.EllipticCurvePrivateKey, address: str, first: int, last: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).add_extension(alternative, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    begin, end = (datetime.datetime(year, 1, 1) for year in (first, last))
    return builder.not_valid_before(begin).not_valid_after(end).sign(key, hashes.SHA256())
