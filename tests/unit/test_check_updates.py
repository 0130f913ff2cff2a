"""The image check asks real package mirrors by apt: here one of our own, behind a proxy."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aisandbox.check import CHECKS, Settings, run
from aisandbox.check import system as checked
from tests.support.clean_root import Root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the image check looks at everything, as root")
ONLY = {"security-updates": CHECKS["security-updates"]}
SOURCE = "deb http://security.example.org/debian-security stable-security main\n"


class Proxy(SimpleHTTPRequestHandler):
    """Answers for whatever host with the files of one folder."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(urlsplit(path).path)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A signed mirror of security updates with a newer Python; yields the folder of its key."""
    folder = tmp_path_factory.mktemp("mirror")
    suite = folder / "files/debian-security/dists/stable-security"
    index = suite / "main/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    index.write_text(
        "Package: python3\nArchitecture: amd64\nVersion: 3.11.2-1+b1.1\nFilename: pool/python3.deb\nSize: 1\n"
        f"SHA256: {'0' * 64}\nDescription: x\n"
    )
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    (suite / "Release").write_text(
        "Origin: Debian\nLabel: Debian-Security\nSuite: stable-security\nCodename: stable-security\n"
        "Date: Sun, 22 Nov 2026 00:00:00 UTC\nArchitectures: amd64\nComponents: main\n"
        f"SHA256:\n {digest} {index.stat().st_size} main/binary-amd64/Packages\n"
    )
    home, keys = folder / "gnupg", folder / "keys"
    home.mkdir(mode=0o700)
    keys.mkdir()
    gpg = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "tests@example.com", "rsa3072", "sign"], check=True)
    subprocess.run([*gpg, "--armor", "--output", str(keys / "tests.asc"), "--export"], check=True)
    subprocess.run([*gpg, "--clearsign", "--output", str(suite / "InRelease"), str(suite / "Release")], check=True)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Proxy, directory=str(folder / "files")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # This host's own proxy would come before one of the environment.
    settings = folder / "apt.conf"
    (folder / "apt.conf.d").mkdir()
    proxy = f"http://127.0.0.1:{server.server_port}"
    settings.write_text(f'Acquire::http::Proxy "{proxy}";\nDir::Etc::parts "{folder}/apt.conf.d";\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_CONFIG", str(settings))
        patch.delenv("no_proxy", raising=False)
        yield keys
    server.shutdown()


@pytest.fixture
def root(tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    root = Root(tmp_path / "root")
    root.write("etc/apt/sources.list", SOURCE)
    monkeypatch.setattr(checked, "_keyrings", lambda _: mirror)
    return root


def test_a_pending_security_update_is_found(root: Root) -> None:
    report = run(root.folder, Settings(), checks=ONLY)
    assert report.failed, report.text()
    assert "python3 3.11.2-1+b1 -> 3.11.2-1+b1.1" in report.text()


def test_what_is_up_to_date_passes(root: Root) -> None:
    status = (root.folder / "var/lib/dpkg/status").read_text()
    root.write("var/lib/dpkg/status", status.replace("3.11.2-1+b1", "3.11.2-1+b1.1"))
    report = run(root.folder, Settings(), checks=ONLY)
    assert report.counts["ok"] == 2, report.text()


@pytest.mark.parametrize(
    "source", ["", "deb http://security.example.org/gone stable-security main\n", "deb file:/srv ./\n"]
)
def test_mirrors_that_do_not_answer_are_no_pass(root: Root, source: str) -> None:
    root.write("etc/apt/sources.list", source)
    report = run(root.folder, Settings(), checks=ONLY)
    assert report.counts["not checked"] == 1 and report.counts["ok"] == 1, report.text()


def test_a_signature_of_somebody_else_is_no_pass(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "_keyrings", lambda _: tmp_path)
    report = run(root.folder, Settings(), checks=ONLY)
    assert report.counts["not checked"] == 1, report.text()
