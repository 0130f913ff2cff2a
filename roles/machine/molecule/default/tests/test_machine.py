"""A machine: a kernel that boots, cloud-init and network settings, and services that start at power-on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from testinfra.host import Host

from aisandbox.manifest import REPOSITORY

PACKAGES = yaml.safe_load((REPOSITORY / "roles" / "machine" / "defaults" / "main.yml").read_text())["machine_packages"]


def test_packages_are_installed(host: Host) -> None:
    listing = host.check_output("dpkg-query --show --showformat '${db:Status-Abbrev} ${Package}\\n'")
    installed = {line.split()[1] for line in listing.splitlines() if line.startswith("ii")}
    assert installed >= {*PACKAGES, "linux-image-cloud-amd64"}
    assert host.run("dpkg --audit").stdout == ""


def test_the_kernel_can_boot(host: Host) -> None:
    (kernel,) = host.check_output("ls /lib/modules").split()
    assert host.file(f"/boot/vmlinuz-{kernel}").size > 1e6
    assert host.file(f"/boot/initrd.img-{kernel}").size > 1e6


@pytest.mark.parametrize("unit", ["systemd-networkd", "systemd-resolved", "ssh"])
def test_services_start_with_the_machine(host: Host, unit: str) -> None:
    assert host.service(unit).is_enabled


def test_names_resolve_in_the_bake_once_systemd_resolved_is_installed(host: Host) -> None:
    """What follows in the same layer, such as NVIDIA's driver, is downloaded, too."""
    led_to = host.file("/run/systemd/resolve/stub-resolv.conf")
    assert led_to.content_string == Path("/etc/resolv.conf").read_text()


@pytest.mark.parametrize("timer", ["apt-daily.timer", "apt-daily-upgrade.timer"])
def test_nothing_is_updated_behind_the_owners_back(host: Host, timer: str) -> None:
    assert host.service(timer).is_masked


def test_cloud_init_accepts_our_settings(host: Host) -> None:
    # The checker wants the header of user-data, which settings of the image need not have.
    settings = "/etc/cloud/cloud.cfg.d/90-aisandbox.cfg"
    checked = host.run(f"(echo '#cloud-config'; cat {settings}) > /tmp/c && cloud-init schema --config-file /tmp/c")
    assert checked.succeeded, checked.stdout + checked.stderr
    read = "from cloudinit.stages import Init; c = Init().cfg; print(c['datasource_list'][0], c['ssh_pwauth'])"
    assert host.check_output(f'python3 -c "{read}"') == "NoCloud False"


def test_the_network_settings_are_known_to_systemd(host: Host) -> None:
    settings = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "Storage=persistent" in settings
    assert host.file("/etc/systemd/network/80-dhcp.network").contains("DHCP=yes")
