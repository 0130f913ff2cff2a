"""`make validate`: a line for each target, and what Packer itself says of each template."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aisandbox.builder.errors import BuildError
from aisandbox.builder.targets import validation
from aisandbox.manifest import REPOSITORY, load

TARGETS = load().targets


def test_make_validate_says_what_was_checked_of_each() -> None:
    checked = subprocess.run(["make", "-s", "validate"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    lines = dict(line.split(maxsplit=1) for line in checked.stdout.splitlines())
    assert list(lines) == list(TARGETS)
    for name in ("digitalocean", "aws", "gcp", "azure", "hetzner"):
        assert lines[name] == "Packer accepts it with fake credentials"
    for name in ("linode", "vultr"):
        assert "1.7" in lines[name] or lines[name].startswith("Packer accepts it")
    assert "signing in" in lines["openstack"]


def test_one_target_alone(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["make", "-s", "validate", "TARGET=hetzner"], cwd=REPOSITORY, check=True)
    assert capfd.readouterr().out.split()[0] == "hetzner"


class Keystone(BaseHTTPRequestHandler):
    """OpenStack's sign-in, version 3: a token for one user, and a catalogue with the two services of a bake."""

    USER, PASSWORD = "baker", "long-enough"

    def do_GET(self) -> None:
        version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{self.base}/v3/"}]}
        self._answer(300 if self.path == "/" else 200, {"versions": {"values": [version]}, "version": version})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = asked["auth"]["identity"]["password"]["user"]
        if (user["name"], user["password"]) != (self.USER, self.PASSWORD):
            self._answer(401, {"error": {"code": 401, "message": "The request you have made requires authentication."}})
            return
        services = [
            {
                "type": kind, "name": name, "id": name,
                "endpoints": [{"id": name, "interface": "public", "region_id": "one", "url": self.base}],
            }
            for kind, name in (("compute", "nova"), ("image", "glance"), ("network", "neutron"))
        ]  # fmt: skip
        token = {"methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z", "catalog": services}
        self._answer(201, {"token": token}, {"X-Subject-Token": "token"})

    @property
    def base(self) -> str:
        return f"http://{self.headers['Host']}"

    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def keystone() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Keystone) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v3"
        server.shutdown()


@pytest.mark.parametrize("password", [Keystone.PASSWORD, "wrong"])
def test_openstacks_template_is_accepted_once_signed_in(password: str) -> None:
    with keystone() as url:
        given = {
            "OS_AUTH_URL": url, "OS_USERNAME": Keystone.USER, "OS_PASSWORD": password, "OS_PROJECT_NAME": "images",
            "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default", "OS_REGION_NAME": "one",
        }  # fmt: skip
        if password == Keystone.PASSWORD:
            assert validation.validate("openstack", {**os.environ, **given}) == "Packer accepts it"
        else:
            with pytest.raises(BuildError, match="(?i)authentication"):
                validation.validate("openstack", {**os.environ, **given})
