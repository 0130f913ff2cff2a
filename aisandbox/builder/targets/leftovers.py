"""Removes what a failed bake has left on a platform.

Packer tidies up behind itself, but not when it is killed, and 1.6 not an AMI that AWS could not make. What a bake made
is known by the name of its image, which Packer gives to the machine, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aisandbox.builder.errors import BuildError
from aisandbox.builder.publish.rest import Api
from aisandbox.builder.targets import aws
from aisandbox.builder.waiting import wait_until

Remove = Callable[[str, Mapping[str, str], Mapping[str, str]], list[str]]
TEMPORARY = "packer_"
"""How the names of Packer's temporary security groups begin."""
DIGITALOCEAN = "https://api.digitalocean.com"
LOCKED_SECONDS = 600.0
"""How long what is under way on a droplet is waited for."""


def remove(target: str, variables: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    """Remove what the bake with these variables of the template has left; returns what that was.

    Args:
        environment: where credentials are looked up.

    Raises:
        BuildError: the platform did not let it be removed.
    """
    own = REMOVERS.get(target)
    return own(variables["image_name"], variables, environment) if own else []


def _aws(name: str, variables: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    from botocore.exceptions import BotoCoreError, ClientError

    ec2 = aws.client(variables, environment)
    removed: list[str] = []
    try:
        _aws_machine(ec2, name, removed)
        _aws_image(ec2, name, removed)
    except (BotoCoreError, ClientError) as error:
        raise BuildError(
            f"what the bake has left on AWS could not be removed: {error}",
            f"look for {name} among the instances and AMIs of {aws.region(variables)}, and remove them",
        ) from error
    return removed


def _aws_machine(ec2: Any, name: str, removed: list[str]) -> None:
    found = ec2.describe_instances(
        Filters=[
            {"Name": "tag:Name", "Values": [name]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
    )
    instances = [instance for group in found["Reservations"] for instance in group["Instances"]]
    ids = [instance["InstanceId"] for instance in instances]
    if not ids:
        return
    ec2.terminate_instances(InstanceIds=ids)
    # A security group cannot go before the machine in it.
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 3, "MaxAttempts": 100})
    removed += ids
    groups = {group["GroupId"]: group["GroupName"] for one in instances for group in one["SecurityGroups"]}
    for group, title in groups.items():
        if title.startswith(TEMPORARY):
            ec2.delete_security_group(GroupId=group)
            removed.append(group)


def _aws_image(ec2: Any, name: str, removed: list[str]) -> None:
    found = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])
    for image in found["Images"]:
        ec2.deregister_image(ImageId=image["ImageId"])
        removed.append(image["ImageId"])
        disks = (mapping.get("Ebs", {}).get("SnapshotId") for mapping in image["BlockDeviceMappings"])
        for snapshot in filter(None, disks):
            ec2.delete_snapshot(SnapshotId=snapshot)
            removed.append(snapshot)


def _digitalocean(name: str, variables: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    removed: list[str] = []
    token = environment["DIGITALOCEAN_TOKEN"]
    with Api("DigitalOcean", variables.get("api_url") or DIGITALOCEAN, token, "DIGITALOCEAN_TOKEN") as api:

        def named(kind: str) -> list[dict[str, Any]]:
            answer = api.ask("GET", f"/v2/{kind}?name={name}&resource_type=droplet&per_page=200")
            return [one for one in answer[kind] if one["name"] == name]

        # A snapshot that is being made when its droplet goes may come into being all the same.
        wait_until(lambda: not any(droplet["locked"] for droplet in named("droplets")), LOCKED_SECONDS)
        for kind in ("droplets", "snapshots"):
            for one in named(kind):
                api.ask("DELETE", f"/v2/{kind}/{one['id']}")
                removed.append(f"{kind.removesuffix('s')} {one['id']}")
    return removed


REMOVERS: dict[str, Remove] = {"aws": _aws, "digitalocean": _digitalocean}
