"""nginx: a configuration that it accepts, our sites only, and a unit that stays up."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from aisandbox import manifest

MANIFEST = manifest.load()


def test_nginx_accepts_the_configuration(host: Host) -> None:
    checked = host.run("nginx -t")
    assert checked.succeeded, checked.stderr
    assert "warn" not in checked.stderr


def test_it_listens_on_the_public_ports_only(host: Host) -> None:
    lines = host.check_output("nginx -T").splitlines()
    listen = {line.split()[1].rstrip(";") for line in lines if line.strip().startswith("listen ")}
    ports = (MANIFEST.ports["chat"].port, MANIFEST.ports["api"].port)
    assert {address.rpartition(":")[2] for address in listen} == {str(port) for port in ports}


def test_the_api_is_closed_until_the_choice_is_known(host: Host) -> None:
    lock = host.file(f"{MANIFEST.paths.etc}/nginx/api-lock.conf")
    assert (lock.user, lock.mode) == ("root", 0o600)
    assert "default 503;" in lock.content_string


def test_it_passes_on_to_the_upstreams(host: Host) -> None:
    for site, name in (("chat", "chat_upstream"), ("api", "api_upstream")):
        assert host.file(f"/etc/nginx/aisandbox/{site}.conf").contains(f"127.0.0.1:{MANIFEST.ports[name].port};")


def test_it_starts_with_the_machine_and_again_whenever_it_stops(host: Host) -> None:
    assert host.service("nginx").is_enabled
    checked = host.run("systemd-analyze verify --man=no nginx.service")
    assert checked.succeeded, checked.stderr
    assert host.file("/etc/systemd/system/nginx.service.d/aisandbox.conf").contains("^Restart=always$")


@pytest.mark.parametrize("name", ["progress", "connect"])
def test_our_pages_are_rendered(host: Host, name: str) -> None:
    page = host.file(f"{MANIFEST.paths.opt}/www/{name}.html")
    assert (page.user, page.mode) == ("root", 0o644)
    assert MANIFEST.product.name in page.content_string
    assert "{{" not in page.content_string
