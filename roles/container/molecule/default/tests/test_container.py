"""A container's file system: no machine in it, nothing of the builder, and a supervisor that knows the catalogue."""

from __future__ import annotations

import configparser
import json

import pytest
import yaml
from testinfra.host import Host

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY
from tests.roles import environments

PATHS = manifest.load().paths
CONFIG = f"{PATHS.opt}/container"
SHARED = yaml.safe_load((REPOSITORY / "roles" / "container" / "defaults" / "main.yml").read_text())["container_shared"]
CATALOGUE = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())["services"]


@pytest.mark.parametrize(
    "program", ["systemd", "systemctl", "sshd", "sudo", "grub-install", "cloud-init", "nft", "nodejs"]
)
def test_a_machines_programs_are_not_there(host: Host, program: str) -> None:
    assert not host.exists(program)


def test_no_kernel_is_there(host: Host) -> None:
    assert host.check_output("find /boot /lib/modules -type f 2>/dev/null | head -1; true") == ""


def test_no_package_is_broken(host: Host) -> None:
    assert host.run("dpkg --audit").stdout == ""
    checked = host.run("apt-get check")
    assert checked.succeeded, checked.stderr


@pytest.mark.parametrize("program", ["chromium", "Xtigervnc", "openbox", "code-server", "curl", "git", "g++"])
def test_the_sandboxs_programs_stay(host: Host, program: str) -> None:
    assert host.exists(program)


def test_no_program_misses_a_library(host: Host) -> None:
    places = "/usr/lib/chromium/chromium /usr/bin/Xtigervnc /usr/bin/openbox /usr/bin/ffmpeg /usr/bin/git"
    assert "not found" not in host.check_output(f"ldd {places}")


def test_environments_share_large_packages_of_one_version(host: Host) -> None:
    server, workbench = (f"{PATHS.opt}/envs/{name}/lib/python*/site-packages" for name in ("sandbox", "workbench"))
    for folder in SHARED.values():
        assert host.check_output(f"readlink -f {server}/{folder}") == host.check_output(f"echo {workbench}/{folder}")


def test_the_supervisors_environment_is_the_locked_one(host: Host) -> None:
    environments.check(host, "supervisor", "supervisor", ["supervisor"])


def test_the_supervisor_runs_what_the_catalogue_names(host: Host) -> None:
    supervisor = configparser.RawConfigParser()
    supervisor.read_string(host.file(f"{CONFIG}/supervisord.conf").content_string)
    programs = {name.removeprefix("program:") for name in supervisor.sections() if name.startswith("program:")}
    assert programs == {name for name, service in CATALOGUE.items() if "container" in service["targets"]}


def test_the_image_says_how_it_runs(host: Host) -> None:
    said = json.loads(host.file(f"{CONFIG}/image.json").content_string)
    assert said["user"] == "1000:1000"
    assert said["environment"]["SANDBOX_IN_CONTAINER"] == "1"
    assert all(isinstance(value, str | int) for value in said["environment"].values())
    assert said["ports"] == [manifest.load().ports["sandbox"].port]


@pytest.mark.parametrize("place", [PATHS.workspace, PATHS.data / "sandbox"])
def test_volumes_can_be_written_by_any_user(host: Host, place: str) -> None:
    folder = host.file(str(place))
    assert folder.is_directory
    assert folder.mode == 0o1777


def test_nothing_of_the_builder_is_left(host: Host) -> None:
    assert host.check_output("find /var/lib/apt/lists -type f -name '*_*' | head -1") == ""
    assert not host.file("/usr/sbin/policy-rc.d").exists


def test_no_account_has_a_password(host: Host) -> None:
    shadow = [line.split(":") for line in host.file("/etc/shadow").content_string.splitlines()]
    assert [name for name, password, *_ in shadow if not password.startswith(("!", "*"))] == []
