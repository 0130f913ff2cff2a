"""Checks of the way out, and of the name by which the instance is reached."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from aisandbox.instance import address as addresses
from aisandbox.instance.observe.doctor.finding import Finding, Instance, Severity, failed, ok, skipped, warning
from aisandbox.instance.observe.doctor.machine import SET_CLOCK

HUB = "https://huggingface.co"
TIMEOUT_S = 5.0
SKEW_S = 60.0
RENEWAL_DAYS = 14
"""Certificates are renewed long before; with fewer days left, that has failed."""


def hub(instance: Instance) -> Iterator[Finding]:
    """Name, way, encryption, clock and token, in that order: each needs the one before."""
    endpoint = instance.deployment and instance.deployment.hub_endpoint
    address = (endpoint or HUB).rstrip("/")
    # With the model here, everything works without the hub.
    severity: Severity = "warning" if instance.report("model").get("state") == "done" else "failed"
    parts = urlsplit(address)
    try:
        socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        fix = f"Check the network and its name servers: resolvectl query {parts.hostname}; cat /etc/resolv.conf"
        yield Finding(severity=severity, text=f"The name {parts.hostname} is not found.", cause=str(error), fix=fix)
        return
    import httpx2  # slow to import

    token = _token(instance)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx2.get(f"{address}/api/whoami-v2", headers=headers, timeout=TIMEOUT_S)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        fix = f"Check firewall and proxy of the network: curl --verbose --head {address}"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            fix = f"Check the clock ({SET_CLOCK}) and whether a proxy replaces certificates."
        cause = str(error) or type(error).__name__
        yield Finding(severity=severity, text=f"{address} cannot be reached.", cause=cause, fix=fix)
        return
    yield ok(f"{address} answers")
    skew = _skew(answer.headers.get("Date"))
    if skew is not None and abs(skew) > SKEW_S:
        direction = "slow" if skew > 0 else "fast"
        yield failed(f"The clock is {abs(skew):.0f} s {direction}, compared with {address}.", SET_CLOCK)
    if not instance.root:
        yield skipped("Only root can check the access token.")
    elif token and answer.status_code in (401, 403):
        fix = "Give a valid one (sudo aisandbox configure --set hf_token=hf_…), or none (--unset hf_token)."
        yield failed("The access token is refused.", fix, f"{address} answered {answer.status_code}")
    elif token:
        valid = answer.status_code == 200
        yield ok("the access token is valid") if valid else skipped("The hub does not tell whether the token is valid.")


def _token(instance: Instance) -> str:
    try:
        return instance.places.hf_token.read_text().strip()
    except OSError:
        return ""


def _skew(date: str | None) -> float | None:
    """Seconds by which the hub's clock is ahead of ours."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time() if date else None
    except ValueError:
        return None


def domain(instance: Instance) -> Iterator[Finding]:
    name = instance.access.domain
    if not name:
        yield skipped("No domain is chosen.")
        return
    own = addresses.host(instance.places)
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)})
    except OSError as error:
        fix = f"At the provider of the domain, add an A record for {name} with the address {own}."
        yield failed(f"The name {name} is not found.", fix, str(error))
        return
    if own in found:
        yield ok(f"{name} points here ({own})")
    else:
        fix = f"If {own} is the instance's public address, set the A record of {name} to it."
        yield warning(f"{name} points to {', '.join(found)}, and this instance knows itself as {own}.", fix)


def certificate(instance: Instance) -> Iterator[Finding]:
    name = instance.access.domain
    if not name:
        yield skipped("No domain is chosen.")
        return
    report = instance.report("certificate")
    port = instance.port("https")
    renew = str(report.get("fix") or "sudo aisandbox logs certificate")
    cause = str(report.get("message") or "")
    if report.get("state") == "running":
        yield warning(f"There is no certificate for {name} yet.", "Wait, and follow it: sudo aisandbox status", cause)
        return
    try:
        with (
            socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=name) as secured,
        ):
            shown = secured.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        yield failed(f"The certificate of {name} is not valid: {error.verify_message}.", renew, cause)
        return
    except OSError as error:
        yield failed(f"Nothing answers by HTTPS on port {port}.", renew, cause or str(error))
        return
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
    days = (ends - datetime.now(UTC)).days
    text = f"the certificate of {name} is valid until {ends:%Y-%m-%d}"
    yield warning(f"{text}, and has not been renewed.", renew, cause) if days < RENEWAL_DAYS else ok(text)
