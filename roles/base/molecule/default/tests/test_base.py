"""What a machine and a container share: packages, accounts that never change their numbers, and directories."""

from __future__ import annotations

import pytest
import yaml
from testinfra.host import Host

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY

VARIABLES = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "main.yml").read_text())
PACKAGES = yaml.safe_load((REPOSITORY / "roles" / "base" / "defaults" / "main.yml").read_text())["base_packages"]
PATHS = manifest.load().paths


def test_packages_are_installed(host: Host) -> None:
    listing = host.check_output("dpkg-query --show --showformat '${db:Status-Abbrev} ${Package}\\n'")
    installed = {line.split()[1] for line in listing.splitlines() if line.startswith("ii")}
    assert installed >= set(PACKAGES)
    assert host.run("dpkg --audit").stdout == ""


@pytest.mark.parametrize("program", ["systemd", "systemctl", "sshd", "sudo", "grub-install", "cloud-init", "nft"])
def test_a_machines_programs_are_left_to_the_role_machine(host: Host, program: str) -> None:
    assert not host.exists(program)


@pytest.mark.parametrize("account", VARIABLES["service_accounts"], ids=lambda account: account["name"])
def test_accounts_have_fixed_numbers_and_no_login(host: Host, account: dict[str, str | int]) -> None:
    user = host.user(account["name"])
    assert (user.uid, user.gid, user.shell) == (account["id"], account["id"], "/usr/sbin/nologin")
    assert user.password == "!"


def test_only_vllm_writes_the_status(host: Host) -> None:
    group = VARIABLES["status_group"]
    assert host.group(group["name"]).gid == group["id"]
    assert host.group(group["name"]).members == group["members"]


@pytest.mark.parametrize("path", [PATHS.opt, PATHS.etc, PATHS.data])
def test_places_belong_to_root(host: Host, path: str) -> None:
    place = host.file(str(path))
    assert (place.is_directory, place.user, place.group, place.mode) == (True, "root", "root", 0o755)


def test_package_scripts_start_nothing(host: Host) -> None:
    assert host.run("/usr/sbin/policy-rc.d").rc == 101
