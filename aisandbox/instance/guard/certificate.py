"""HTTPS for the domain: a certificate by ACME, which certbot gets and renews, and the sites that nginx serves with it.

Its state is told in the status file `certificate`; while there is no domain there is none. Until the first certificate
is there, chat and API go on by HTTP: a wrong DNS record must not keep anybody from their instance.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.observe.report import Reporter
from aisandbox.instance.places import Places
from aisandbox.instance.run import rendering, services
from aisandbox.manifest import Manifest

CERTBOT = "certbot"
CERTBOT_TIMEOUT_S = 300
RENEWAL_CHECK_S = 12 * 3600
DNS_CHECK_S = 20
"""Asking one's own resolver costs nobody anything."""
RETRY_S = (300, 600, 1200, 2400, 4800, 9600, 21600)
"""After each failure in a row. Certificate authorities allow about five failures an hour."""


@dataclass(frozen=True)
class Wish:
    """What was chosen, from the unit's environment file."""

    domain: str
    email: str
    """Where the certificate authority may write to; may be empty."""
    directory: str
    """Address of the certificate authority's ACME directory; empty for certbot's own choice."""
    strict: bool
    """Whether browsers may be told to use nothing but HTTPS under this name, on all its ports."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Wish | None:
        """The wish in the environment; None when there is no domain."""
        domain = environment.get("AISANDBOX_DOMAIN", "")
        if not domain:
            return None
        email, directory, strict = (environment.get(f"AISANDBOX_{name}", "") for name in ("TLS_EMAIL", "ACME", "HSTS"))
        return cls(domain, email, directory, strict == "1")


class CertificateError(Exception):
    """There is no (new) certificate; the message says why, `fix` what would help."""

    def __init__(self, reason: str, fix: str, waiting: bool = False) -> None:
        super().__init__(reason)
        self.fix = fix
        self.waiting = waiting
        """Whether nobody has been asked yet, so that trying again soon does no harm."""


class Keeper:
    """Keeps one domain's certificate, and nginx informed. `reload` raises OSError or SubprocessError on failure."""

    def __init__(
        self,
        places: Places,
        manifest: Manifest,
        reload: Callable[[], None] = lambda: services.reload_now(services.NGINX),
    ) -> None:
        self._places = places
        self._manifest = manifest
        self._reload = reload
        self._report = Reporter(places.status("certificate"))
        self._failures = 0

    def forget(self) -> None:
        """There is no domain (any more): nothing but HTTP, and nothing to tell."""
        self._publish(None)
        self._places.status("certificate").unlink(missing_ok=True)

    def keep(self, wish: Wish) -> None:
        """Get and renew the certificate, for ever."""
        while True:
            time.sleep(self.step(wish))

    def step(self, wish: Wish) -> float:
        """Have a valid certificate if it can be had, and nginx serve it. Returns the seconds until the next step."""
        try:
            self._publish(wish)
            if not self.certificate(wish).exists():
                self._report.running("certificate", f"Getting a certificate for {wish.domain}", domain=wish.domain)
                self._resolve(wish)
            self._certbot(wish)
            self._publish(wish)
        except CertificateError as error:
            return self._failed(wish, error)
        except (OSError, subprocess.SubprocessError) as error:
            fix = f"See the journal: sudo journalctl -u {services.CERTIFICATE} -u {services.NGINX}"
            return self._failed(wish, CertificateError(f"HTTPS could not be set up: {error}", fix))
        self._failures = 0
        self._done(wish)
        return RENEWAL_CHECK_S

    def certificate(self, wish: Wish) -> Path:
        """The certificate with its chain, beside its key."""
        return self._places.tls / "live" / wish.domain / "fullchain.pem"

    def _resolve(self, wish: Wish) -> None:
        try:
            socket.getaddrinfo(wish.domain, self._manifest.ports["http"].port, type=socket.SOCK_STREAM)
        except OSError as error:
            reason = f"The name {wish.domain} leads nowhere yet ({error.strerror})."
            fix = f"Make an A record for {wish.domain} with this instance's public address; no restart is needed."
            raise CertificateError(reason, fix, waiting=True) from None

    def _certbot(self, wish: Wish) -> None:
        """Get the certificate unless there is one that lasts; certbot knows when to renew."""
        tls = self._places.tls
        command = [CERTBOT, "certonly", "--non-interactive", "--agree-tos", "--keep-until-expiring"]
        command += ["--config-dir", str(tls), "--work-dir", str(tls / "work"), "--logs-dir", str(tls / "log")]
        command += ["--max-log-backups", "10", "--key-type", "ecdsa"]
        command += ["--cert-name", wish.domain, "--domain", wish.domain]
        command += ["--webroot", "--webroot-path", str(self._places.acme)]
        command += ["--server", wish.directory] if wish.directory else []
        command += ["--no-eff-email", "--email", wish.email] if wish.email else ["--register-unsafely-without-email"]
        self._places.acme.mkdir(parents=True, exist_ok=True)
        asked = subprocess.run(command, capture_output=True, text=True, timeout=CERTBOT_TIMEOUT_S, check=False)
        if asked.returncode:
            reason = f"No certificate for {wish.domain}: {_words(asked.stdout + asked.stderr)}"
            port = self._manifest.ports["http"].port
            fix = (
                f"Let {wish.domain} point at this instance alone, and let port {port} through the provider's firewall. "
                f"To try again at once: sudo systemctl restart {services.CERTIFICATE}"
            )
            raise CertificateError(reason, fix)

    def _publish(self, wish: Wish | None) -> None:
        """Give nginx the sites that fit; should it refuse them, it keeps those that it has."""
        wanted = self._sites(wish)
        folder = self._places.gateway
        before = {path.name: path.read_text() for path in sorted(folder.glob("*.conf"))}
        if before == wanted:
            return
        self._write(wanted)
        try:
            self._reload()
        except (OSError, subprocess.SubprocessError):
            self._write(before)
            raise

    def _sites(self, wish: Wish | None) -> dict[str, str]:
        if wish is None:
            return {}
        file = self.certificate(wish)
        names = ("http", "chat-https", "api-https") if file.exists() else ("http",)
        context = {
            "manifest": self._manifest,
            "domain": wish.domain,
            "strict": wish.strict,
            "certificate": str(file) if file.exists() else None,
            # A renewed certificate is another site.
            "digest": _digest(file) if file.exists() else "",
            "acme": str(self._places.acme),
        }
        templates = self._places.templates / "nginx" / "https"
        return {
            f"{name}.conf": rendering.fill((templates / f"{name}.conf.j2").read_text(encoding="utf-8"), context)
            for name in names
        }

    def _write(self, sites: Mapping[str, str]) -> None:
        folder = self._places.gateway
        for path in folder.glob("*.conf"):
            if path.name not in sites:
                path.unlink()
        for name, text in sites.items():
            files.write(folder / name, text)

    def _served(self, wish: Wish) -> bool:
        site = self._places.gateway / "chat-https.conf"
        return site.exists() and str(self.certificate(wish)) in site.read_text(encoding="utf-8")

    def _failed(self, wish: Wish, error: CertificateError) -> float:
        wait = DNS_CHECK_S if error.waiting else RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += not error.waiting
        if self._served(wish) and _expires(self.certificate(wish)) > datetime.now(UTC):
            self._done(wish, f" It could not be renewed: {error} {error.fix}")
        else:
            message = f"{error} Until then chat and API are served without encryption."
            self._report.failed("certificate", message, error.fix, domain=wish.domain, retry_s=wait)
        return wait

    def _done(self, wish: Wish, more: str = "") -> None:
        expires = _expires(self.certificate(wish))
        message = f"https://{wish.domain}/ has a certificate that is valid until {expires:%Y-%m-%d}.{more}"
        self._report.done("certificate", message, domain=wish.domain, expires=expires.isoformat())


def _expires(certificate: Path) -> datetime:
    command = ["openssl", "x509", "-noout", "-enddate", "-in", str(certificate)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(shown.strip().partition("=")[2]), UTC)


def _digest(certificate: Path) -> str:
    return hashlib.sha256(certificate.read_bytes()).hexdigest()


def _words(output: str) -> str:
    """What the certificate authority said, out of what certbot said."""
    details = re.findall(r"^ *Detail: (.+)$", output, re.MULTILINE)
    if not details:
        lines = [line.strip() for line in output.splitlines() if line.strip() and "Saving debug log" not in line]
        details = [line for line in lines if not line.startswith(("Ask for help", "See the logfile"))][-2:]
    return " ".join(dict.fromkeys(details))[:500]


def main(places: Places, manifest: Manifest) -> None:
    """Serve the wish in the environment: for ever with a domain, once without."""
    keeper = Keeper(places, manifest)
    wish = Wish.read(os.environ)
    if wish is None:
        keeper.forget()
    else:
        keeper.keep(wish)
