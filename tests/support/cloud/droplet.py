"""What a droplet is handed by DigitalOcean: a configuration drive, vendor data and a metadata service."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import metadata
from tests.support.cloud.hypervisor import Place

DRIVE = "/config-drive"
"""cloud-init takes a drive that is mounted here for one labelled config-2; in a container it looks for no labels."""
VERSIONS = ("2012-08-10", "latest")
IMAGE_SETTINGS = Path("etc/cloud/cloud.cfg.d/99-digitalocean.cfg")


@dataclass(frozen=True)
class Identity:
    """What is told to a droplet about itself."""

    id: int
    name: str
    region: str
    public_keys: Sequence[str]
    user_data: str | None
    tags: Sequence[str]


def write_image_settings(folder: Path) -> Path:
    """The part of a stock image that is DigitalOcean's own, as a directory to lay over Debian's."""
    settings = folder / IMAGE_SETTINGS
    settings.parent.mkdir(parents=True)
    settings.write_text("datasource_list: [ConfigDrive, DigitalOcean, None]\n")
    return folder


def write_drive(folder: Path, droplet: Identity, place: Place) -> None:
    """The configuration drive's files."""
    files = {
        "meta_data.json": {
            "uuid": str(droplet.id),
            "hostname": droplet.name,
            "availability_zone": droplet.region,
            "public_keys": {str(index): key for index, key in enumerate(droplet.public_keys)},
        },
        "network_data.json": {
            "links": [{"id": "interface0", "type": "phy", "ethernet_mac_address": place.mac}],
            "networks": [
                {
                    "id": "network0",
                    "type": "ipv4",
                    "link": "interface0",
                    "ip_address": place.address,
                    "netmask": str(place.network.subnet.netmask),
                    "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": place.network.gateway}],
                }
            ],
            "services": [{"type": "dns", "address": server} for server in place.nameservers],
        },
        "vendor_data.json": {"cloud-init": [VENDOR_CONFIG, _agent_script()]},
    }
    for version in VERSIONS:
        inside = folder / "openstack" / version
        # User-data may carry tokens: nobody else reads it.
        inside.mkdir(parents=True, mode=0o700)
        for name, content in files.items():
            (inside / name).write_text(json.dumps(content))
        if droplet.user_data is not None:
            (inside / "user_data").write_text(droplet.user_data)


def metadata_service(droplet: Identity, place: Place) -> metadata.Cloud:
    """What answers the droplet at 169.254.169.254."""
    whole = {
        "droplet_id": droplet.id,
        "hostname": droplet.name,
        "region": droplet.region,
        "public_keys": list(droplet.public_keys),
        "interfaces": {
            "public": [
                {
                    "ipv4": {
                        "ip_address": place.address,
                        "netmask": str(place.network.subnet.netmask),
                        "gateway": place.network.gateway,
                    },
                    "mac": place.mac,
                    "type": "public",
                }
            ]
        },
        "dns": {"nameservers": place.nameservers},
        "tags": list(droplet.tags),
        **({} if droplet.user_data is None else {"user_data": droplet.user_data}),
    }
    leaves = {
        "/metadata/v1.json": json.dumps(whole),
        "/metadata/v1/id": str(droplet.id),
        "/metadata/v1/hostname": droplet.name,
        "/metadata/v1/region": droplet.region,
        "/metadata/v1/public-keys": "\n".join(droplet.public_keys),
        **({} if droplet.user_data is None else {"/metadata/v1/user-data": droplet.user_data}),
    }

    def answer(request: metadata.Request) -> metadata.Answer:
        body = leaves.get(request.path)
        return metadata.MISSING if body is None else metadata.Answer(200, body.encode())

    return answer


VENDOR_CONFIG = "#cloud-config\ndisable_root: false\n"


def _agent_script() -> str:
    """DigitalOcean installs an agent of its own on every droplet; a snapshot must not have it."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "package")
        control = package / "DEBIAN" / "control"
        agent = package / "opt" / "digitalocean" / "bin" / "droplet-agent"
        unit = package / "lib" / "systemd" / "system" / "droplet-agent.service"
        for file in (control, agent, unit):
            file.parent.mkdir(parents=True)
        removal = control.with_name("prerm")
        removal.write_text("#!/bin/sh -e\nsystemctl disable --now droplet-agent.service\n")
        removal.chmod(0o755)
        control.write_text(
            "Package: droplet-agent\nVersion: 1.3.0\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\n"
            "Description: Pretended agent of a pretended cloud\n"
        )
        agent.write_text("#!/bin/sh\nexec sleep infinity\n")
        agent.chmod(0o755)
        unit.write_text(
            "[Service]\nExecStart=/opt/digitalocean/bin/droplet-agent\n[Install]\nWantedBy=multi-user.target\n"
        )
        archive = Path(folder, "agent.deb")
        command = ["dpkg-deb", "--root-owner-group", "--build", str(package), str(archive)]
        subprocess.run(command, check=True, capture_output=True)
        text = base64.b64encode(archive.read_bytes()).decode()
    return (
        f"#!/bin/sh -e\necho {text} | base64 --decode > /run/agent.deb\ndpkg --install /run/agent.deb\n"
        "rm /run/agent.deb\nsystemctl enable --now droplet-agent.service\n"
    )
