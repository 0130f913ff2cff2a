"""EC2 for tests: moto answers the API, and its instances are real machines.

    with aws.running(folder, stock_image("cpu")) as cloud:
        cloud.ec2.run_instances(ImageId=aws.STOCK_IMAGE, MinCount=1, MaxCount=1)

What moto only keeps books about happens: RunInstances boots a machine from the image's disk, and what the API answers
as the instance's address is the machine's; StopInstances powers it off in order, CreateImage keeps its disk,
TerminateInstances destroys it. User-data, key and tags reach the machine as they do on AWS, by the metadata service.
All else, and every answer of the API, is moto's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.exceptions import InvalidAMIIdError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import Instance, InstanceState, Reservation
from moto.server import ThreadedMotoServer

from tests.support import metadata
from tests.support.cloud import dhcp
from tests.support.cloud.hypervisor import Hypervisor, Place, Seed
from tests.support.cloud.hypervisor import Instance as Machine

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "only-moto-takes-this"}
STOCK_IMAGE = "ami-0123456789abcdef0"
DEBIAN = "136693071363"
"""The account that publishes Debian's images."""

# A container has no firmware that says on which cloud it is: cloud-init gets its words another way.
HYPERVISOR = Path("/sys/hypervisor/uuid")
DATASOURCE = Path("/etc/cloud/ds-identify.cfg")


@dataclass
class Faults:
    """How the cloud fails; may be changed while it runs."""

    no_quota: bool = False
    """Whether instances are refused, as for an account that may run no more of them."""
    broken_images: bool = False
    """Whether images that are created end in the state `failed`."""


class Region(EC2Backend):
    """moto's books of one region, with a machine behind every instance."""

    # moto looks for the API's routes beside this module.
    __module__ = EC2Backend.__module__

    def __init__(self, hypervisor: Hypervisor, leases: dhcp.Dhcp, sources: Mapping[Path, str]) -> None:
        super().__init__(REGION, DEFAULT_ACCOUNT_ID)
        self.hypervisor = hypervisor
        self.leases = leases
        self.sources = sources
        self.faults = Faults()
        self.disks: dict[str, Sequence[Path]] = {}
        self.machines: dict[str, Machine] = {}

    def _load_amis(self) -> None:
        """Offer none of the images that moto knows: there are no disks of them."""

    def offer(self, image: str, disk: Sequence[Path]) -> None:
        """Publish an image, as Debian does."""
        self.amis[image] = Ami(
            self, image, name="debian-12-amd64", owner_id=DEBIAN, public=True, architecture="x86_64",
            virtualization_type="hvm", hypervisor="xen", root_device_type="ebs", root_device_name="/dev/xvda",
        )  # fmt: skip
        self.disks[image] = disk

    def run_instances(self, image_id: str, *args: Any, **kwargs: Any) -> Reservation:
        if image_id not in self.disks:
            raise InvalidAMIIdError(image_id)
        if self.faults.no_quota:
            self.raise_error("VcpuLimitExceeded", "You have requested more vCPU capacity than your current limit.")
        reservation = super().run_instances(image_id, *args, **kwargs)
        for instance in reservation.instances:
            # The key stays on the instance when the key pair is deleted.
            key = self.key_pairs.get(instance.key_name or "")

            def seed(place: Place, instance: Instance = instance, key: Any = key) -> Seed:
                return self._seed(instance, place, (key.key_name, key.public_key) if key else None)

            self.machines[instance.id] = self.hypervisor.boot(instance.id, self.disks[image_id], seed)
        return reservation

    def stop_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        changes = super().stop_instances(instance_ids)
        for instance, _ in changes:
            self.hypervisor.power_off(self.machines[instance.id])
        return changes

    def terminate_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        changes = super().terminate_instances(instance_ids)
        for instance, _ in changes:
            machine = self.machines.pop(instance.id, None)
            if machine:
                self.leases.forget(machine.address)
                self.hypervisor.destroy(machine)
        return changes

    def create_image(self, instance_id: str, *args: Any, **kwargs: Any) -> Ami:
        image = super().create_image(instance_id, *args, **kwargs)
        if self.faults.broken_images:
            image.state = "failed"
        else:
            self.disks[image.id] = self.hypervisor.snapshot(self.machines[instance_id]).lower
        return image

    def start_instances(self, instance_ids: list[str]) -> list[tuple[Instance, InstanceState]]:
        raise NotImplementedError("a machine that was stopped is not started again here")

    def reboot_instances(self, instance_ids: list[str]) -> list[Instance]:
        raise NotImplementedError("machines reboot from inside here")

    def _seed(self, instance: Instance, place: Place, key: tuple[str, str] | None) -> Seed:
        """Enter the machine's address in the books, and tell the machine what the books say of it."""
        interface = instance.nics[0]
        interface.private_ip_address = interface.public_ip = place.address
        interface.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": place.address}]
        interface.mac_address = place.mac
        interface.delete_on_termination = True
        self.leases.expect(place.mac, place.address)
        folder = self.hypervisor.folder / instance.id
        uuid, datasource = folder / "hypervisor-uuid", folder / "ds-identify.cfg"
        uuid.write_text(f"ec2{instance.id.removeprefix('i-')[:5]}-0000-4000-8000-{instance.id[-12:]}\n")
        datasource.write_text("datasource: Ec2\n")
        files = {uuid: str(HYPERVISOR), datasource: str(DATASOURCE)}
        files |= self.sources if instance.image_id == STOCK_IMAGE else {}
        return Seed(files, metadata.imds(lambda: _tree(instance, key)))


def _tree(instance: Instance, key: tuple[str, str] | None) -> metadata.Tree:
    """What the metadata service tells an instance of itself; tags change while it runs."""
    (interface,) = instance.network_interfaces
    address = str(instance.private_ip)
    mac = f"meta-data/network/interfaces/macs/{interface.mac_address}/"
    identity = {
        "accountId": DEFAULT_ACCOUNT_ID, "architecture": instance.architecture, "imageId": instance.image_id,
        "instanceId": instance.id, "instanceType": instance.instance_type, "privateIp": address, "region": REGION,
        "availabilityZone": instance.availability_zone, "version": "2017-09-30",
    }  # fmt: skip
    told = {
        "dynamic/instance-identity/document": json.dumps(identity),
        "meta-data/ami-id": instance.image_id,
        "meta-data/instance-id": instance.id,
        "meta-data/instance-type": instance.instance_type,
        "meta-data/local-hostname": instance.private_dns_name,
        "meta-data/local-ipv4": address,
        "meta-data/mac": interface.mac_address,
        "meta-data/placement/availability-zone": instance.availability_zone,
        "meta-data/placement/region": REGION,
        "meta-data/public-ipv4": address,
        f"{mac}device-number": "0",
        f"{mac}interface-id": interface.id,
        f"{mac}local-ipv4s": address,
        f"{mac}vpc-id": instance.vpc_id,
    }
    if key:
        told |= {"meta-data/public-keys/": f"0={key[0]}", "meta-data/public-keys/0/openssh-key": key[1]}
    tree = {path: str(value).encode() for path, value in told.items()}
    if instance.user_data is not None:
        tree["user-data"] = base64.b64decode(instance.user_data.as_bytes())
    if instance.metadata_options.instance_metadata_tags == "enabled":
        tree |= metadata.instance_tags({tag["key"]: tag["value"] for tag in instance.get_tags()})
    return tree


@dataclass(frozen=True)
class Cloud:
    endpoint: str
    region: Region

    @property
    def ec2(self) -> Any:
        """boto3's client of the cloud's API."""
        keys = {name.lower(): value for name, value in CREDENTIALS.items()}
        return boto3.client("ec2", endpoint_url=self.endpoint, region_name=REGION, **keys)

    def machine(self, instance_id: str) -> Machine:
        return self.region.machines[instance_id]

    def inventory(self) -> dict[str, set[str]]:
        """Everything that the account pays for or would have to tidy up, as the API lists it."""
        ec2 = self.ec2
        instances = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
        groups = ec2.describe_security_groups()["SecurityGroups"]
        return {
            "instances": {one["InstanceId"] for one in instances if one["State"]["Name"] != "terminated"},
            "machines": set(self.region.hypervisor.instances),
            "volumes": {one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]},
            "images": {one["ImageId"] for one in ec2.describe_images(Owners=["self"])["Images"]},
            "snapshots": {one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]},
            "key pairs": {one["KeyName"] for one in ec2.describe_key_pairs()["KeyPairs"]},
            "security groups": {one["GroupName"] for one in groups} - {"default"},
            "network interfaces": {
                one["NetworkInterfaceId"] for one in ec2.describe_network_interfaces()["NetworkInterfaces"]
            },
        }


@contextmanager
def running(folder: Path, stock: Sequence[Path], sources: Mapping[Path, str] | None = None) -> Iterator[Cloud]:
    """The cloud, until the block ends: then its machines and their disks are gone.

    Args:
        folder: for the machines; must not be there.
        stock: disk of the image that Debian publishes there, uppermost directory first.
        sources: package sources that are files of this host, and where machines of the stock image see them.
    """
    with Hypervisor(folder) as hypervisor, dhcp.serving(folder / "dhcp") as leases:
        region = Region(hypervisor, leases, sources or {})
        region.offer(STOCK_IMAGE, stock)
        account = ec2_backends[DEFAULT_ACCOUNT_ID]
        before = dict(account)
        account[REGION] = region
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            yield Cloud(f"http://{host}:{port}", region)
        finally:
            server.stop()
            account.clear()
            account.update(before)
