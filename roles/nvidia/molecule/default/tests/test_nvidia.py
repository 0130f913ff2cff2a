"""The driver from a signed repository: new enough, from there and nowhere else, and nothing shared by instances."""

from __future__ import annotations

import pytest
import yaml
from testinfra.host import Host

from aisandbox.manifest import REPOSITORY

ROLE = REPOSITORY / "roles" / "nvidia"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
DEBIAN = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["nvidia_of"]["bookworm"]


@pytest.mark.parametrize("name", DEBIAN["packages"])
def test_the_driver_is_installed_and_new_enough(host: Host, name: str) -> None:
    package = host.package(name)
    assert package.is_installed
    assert int(package.version.split(".")[0]) >= DEFAULTS["nvidia_minimum_driver"]


def test_only_packages_signed_by_its_key_are_taken(host: Host) -> None:
    source = yaml.safe_load(host.file("/etc/apt/sources.list.d/nvidia-cuda.sources").content_string)
    assert (source["Types"], source["Suites"]) == ("deb", "/")
    assert "BEGIN PGP PUBLIC KEY BLOCK" in host.file(source["Signed-By"]).content_string
    assert "48580" in host.check_output("apt-cache policy nvidia-driver-cuda")


def test_debians_contrib_is_there_for_its_dependencies(host: Host) -> None:
    assert "contrib" in host.check_output("apt-cache policy")


def test_nouveau_stays_away(host: Host) -> None:
    assert "blacklist nouveau" in host.check_output("modprobe --showconfig").splitlines()


def test_no_modules_are_built_at_boot(host: Host) -> None:
    assert not host.service("dkms").is_enabled


@pytest.mark.parametrize("key", ["mok.key", "mok.pub"])
def test_no_signing_key_is_shared(host: Host, key: str) -> None:
    assert not host.file(f"/var/lib/dkms/{key}").exists
