"""The driver from a signed repository: one version, from there and nowhere else, held; nothing shared by instances."""

from __future__ import annotations

import configparser

import pytest
import yaml
from testinfra.host import Host

from aisandbox.manifest import REPOSITORY

ROLE = REPOSITORY / "roles" / "nvidia"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
DRIVER = yaml.safe_load((REPOSITORY / "ansible" / "versions.yml").read_text())["nvidia_driver"]
DEPENDENCIES = ["libcuda1", "firmware-nvidia-gsp"]
PERSISTENCE = "/etc/systemd/system/nvidia-persistenced.service.d/aisandbox.conf"


@pytest.mark.parametrize("name", [*DEFAULTS["nvidia_packages"], *DEPENDENCIES])
def test_all_of_the_driver_has_the_pinned_version_though_a_newer_one_is_there(host: Host, name: str) -> None:
    package = host.package(name)
    assert package.is_installed
    assert package.version == f"{DRIVER}-1"
    assert "615." in host.check_output(f"apt-cache policy {name}")


@pytest.mark.parametrize("name", DEFAULTS["nvidia_subnet_packages"])
def test_newer_switches_have_their_subnet_manager(host: Host, name: str) -> None:
    assert host.package(name).is_installed


def test_the_pinned_driver_is_new_enough(host: Host) -> None:
    assert int(DRIVER.split(".")[0]) >= DEFAULTS["nvidia_minimum_driver"]


def test_driver_modules_kernel_and_headers_are_held(host: Host) -> None:
    held = set(host.check_output("apt-mark showhold").splitlines())
    assert {*DEFAULTS["nvidia_packages"], *DEPENDENCIES, "nvlsm", "dkms"} <= held
    installed = host.check_output("dpkg-query --show --showformat='${Package}\n' 'linux-image-*'").splitlines()
    kernels = {name for name in installed if host.package(name).is_installed}
    assert kernels and kernels <= held


@pytest.mark.parametrize("without", ["the pin", "the holds"])
def test_pin_and_holds_each_keep_the_version(host: Host, without: str) -> None:
    option = "-o Dir::Etc::PreferencesParts=/nonexistent" if without == "the pin" else "--ignore-hold"
    planned = host.check_output(f"apt-get --simulate {option} dist-upgrade")
    assert not any(line.startswith("Inst ") and "615." in line for line in planned.splitlines())


def test_without_both_it_would_be_the_newest(host: Host) -> None:
    """So that the test before can fail."""
    planned = host.check_output(
        "apt-get --simulate --ignore-hold -o Dir::Etc::PreferencesParts=/nonexistent dist-upgrade"
    )
    assert any(line.startswith("Inst nvidia-driver-cuda") and "615." in line for line in planned.splitlines())


def test_only_packages_signed_by_its_key_are_taken(host: Host) -> None:
    source = yaml.safe_load(host.file("/etc/apt/sources.list.d/nvidia-cuda.sources").content_string)
    assert (source["Types"], source["Suites"]) == ("deb", "/")
    assert "BEGIN PGP PUBLIC KEY BLOCK" in host.file(source["Signed-By"]).content_string
    assert "48580" in host.check_output("apt-cache policy nvidia-driver-cuda")


def test_debians_contrib_is_there_for_its_dependencies(host: Host) -> None:
    assert "contrib" in host.check_output("apt-cache policy")


def test_the_fabric_manager_does_not_start_by_itself(host: Host) -> None:
    assert host.file("/lib/systemd/system/nvidia-fabricmanager.service").exists
    assert not host.service("nvidia-fabricmanager").is_enabled


def test_the_persistence_daemon_starts_after_the_device_files_and_before_the_model_server(host: Host) -> None:
    assert host.service("nvidia-persistenced").is_enabled
    unit = configparser.ConfigParser()
    unit.read_string(host.file(PERSISTENCE).content_string)
    assert dict(unit["Unit"]) == {
        "after": "aisandbox-gpu.service",
        "before": "vllm.service",
        "conditionpathexists": "/dev/nvidiactl",
    }


def test_nouveau_stays_away(host: Host) -> None:
    assert "blacklist nouveau" in host.check_output("modprobe --showconfig").splitlines()


def test_no_modules_are_built_at_boot(host: Host) -> None:
    assert not host.service("dkms").is_enabled


@pytest.mark.parametrize("key", ["mok.key", "mok.pub"])
def test_no_signing_key_is_shared(host: Host, key: str) -> None:
    assert not host.file(f"/var/lib/dkms/{key}").exists
