"""What platforms ask for is there, and what they refuse is gone."""

from __future__ import annotations

from testinfra.host import Host


def test_azures_agent_is_there_and_leaves_provisioning_to_cloud_init(host: Host) -> None:
    assert host.service("walinuxagent").is_enabled
    assert host.file("/etc/waagent.conf").contains("^Provisioning.Agent=cloud-init")


def test_digitaloceans_agent_is_gone(host: Host) -> None:
    assert not host.package("droplet-agent").is_installed
    assert not host.file("/opt/digitalocean").exists
