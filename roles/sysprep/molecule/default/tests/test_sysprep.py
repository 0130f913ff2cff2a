"""What must be unique to an instance, or tells of the builder, is not in the image."""

from __future__ import annotations

import pytest
from testinfra.host import Host


@pytest.mark.parametrize(
    "pattern",
    [
        "/etc/netplan/*",
        "/etc/*-",
        "/etc/ssh/ssh_host_*",
        "/etc/sudoers.d/90-cloud-init-users",
        "/home/*",
        "/root/.[!.]*_history",
        "/root/.ansible",
        "/root/.cache",
        "/root/.config",
        "/root/.humming",
        "/root/.ssh",
        "/root/[!.]*",
        "/swapfile",
        "/tmp/* /tmp/.[!.]*",
        "/usr/local/bin/uv",
        "/usr/sbin/policy-rc.d",
        "/var/cache/apt/archives/*.deb",
        "/var/crash/*",
        "/var/lib/apt/lists/*_*",
        "/var/lib/cloud/*",
        "/var/lib/dbus/machine-id",
        "/var/lib/shim-signed/mok",
        "/var/lib/systemd/random-seed",
        "/var/log/*.1 /var/log/*/*.xz",
        "/var/log/journal/*",
        "/var/tmp/*",
    ],
)
def test_it_is_gone(host: Host, pattern: str) -> None:
    left = host.run(f'for path in {pattern}; do if [ -e "$path" ]; then echo "$path"; fi; done').stdout
    assert left == ""


def test_what_no_boot_reads_is_gone(host: Host) -> None:
    assert host.check_output("find /usr/share/locale -type f") == ""
    assert host.check_output("find /opt/aisandbox/web -type f | sort").split() == [
        "/opt/aisandbox/web/a.js",
        "/opt/aisandbox/web/site.map",
    ]


def test_what_debian_put_there_stays(host: Host) -> None:
    assert host.file("/root/.bashrc").exists and host.file("/root/.profile").exists
    assert host.file("/etc/sudoers.d/README").exists
    assert host.file("/home").is_directory and host.file("/var/log/journal").is_directory


def test_no_service_can_log_in(host: Host) -> None:
    assert host.user("service").shell == "/usr/sbin/nologin"
    assert host.user("root").shell == "/bin/bash"


def test_logs_are_empty(host: Host) -> None:
    assert host.check_output("find /var/log -type f -size +0") == ""


def test_the_first_boot_makes_the_machine_id(host: Host) -> None:
    machine_id = host.file("/etc/machine-id")
    assert (machine_id.size, machine_id.mode) == (0, 0o444)


def test_the_image_has_its_own_name(host: Host) -> None:
    assert host.file("/etc/hostname").content_string == "aisandbox\n"


def test_it_still_knows_its_packages(host: Host) -> None:
    assert host.run("dpkg --audit").stdout == ""
    assert host.package("openssh-server").is_installed


def test_nobody_but_root_can_change_the_system(host: Host) -> None:
    # Folders for everybody's files are sticky.
    writable = host.check_output("find / -xdev -perm -002 -not -type l -not -perm -1000 -print")
    assert writable == ""
