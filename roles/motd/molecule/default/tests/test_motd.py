"""The message of the day: ours alone, and never in the way of a login."""

from __future__ import annotations

from testinfra.host import Host


def test_only_our_message_is_composed(host: Host) -> None:
    assert host.file("/etc/motd").size == 0
    assert host.file("/etc/update-motd.d").listdir() == ["50-aisandbox"]


def test_it_is_a_program_of_roots(host: Host) -> None:
    script = host.file("/etc/update-motd.d/50-aisandbox")
    assert (script.user, script.mode) == ("root", 0o755)
    assert host.run("sh -n /etc/update-motd.d/50-aisandbox").succeeded


def test_a_login_does_without_the_command(host: Host) -> None:
    assert not host.exists("aisandbox")
    message = host.run("run-parts /etc/update-motd.d")
    assert message.succeeded
    assert "sudo aisandbox status" in message.stdout
