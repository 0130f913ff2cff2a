"""certbot: there, and run by nobody but our own service."""

from __future__ import annotations

from testinfra.host import Host


def test_certbot_can_do_what_our_service_asks_of_it(host: Host) -> None:
    shown = host.check_output("certbot --help all")
    for option in ("--keep-until-expiring", "--webroot-path", "--key-type", "--register-unsafely-without-email"):
        assert option in shown


def test_its_own_timer_is_off(host: Host) -> None:
    assert host.file("/etc/systemd/system/certbot.timer").linked_to == "/dev/null"
    assert not host.file("/etc/systemd/system/timers.target.wants/certbot.timer").exists


def test_the_image_holds_no_account_and_no_certificate(host: Host) -> None:
    found = host.run("ls /etc/letsencrypt/accounts /etc/letsencrypt/live /var/lib/letsencrypt")
    assert found.stdout.strip() in ("", "/var/lib/letsencrypt:")
