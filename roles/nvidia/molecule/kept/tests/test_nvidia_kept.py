"""A driver that the base image brings, new enough, is kept."""

from __future__ import annotations

from testinfra.host import Host


def test_nothing_is_installed(host: Host) -> None:
    assert not host.file("/etc/apt/sources.list.d/nvidia-cuda.sources").exists
    assert host.run("dpkg-query --list 'nvidia-*' dkms").rc != 0


def test_nouveau_stays_away(host: Host) -> None:
    assert "blacklist nouveau" in host.check_output("modprobe --showconfig").splitlines()


def test_its_version_is_not_pinned_and_its_kernel_is_held(host: Host) -> None:
    assert not host.file("/etc/apt/preferences.d/aisandbox-nvidia").exists
    assert "linux-image-" in host.check_output("apt-mark showhold")
