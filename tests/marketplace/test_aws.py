"""AWS from end to end: Packer bakes on a pretended EC2 with real machines, and what it made is deployed and serves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aisandbox.builder import targets
from aisandbox.builder.errors import BuildError
from aisandbox.builder.host import HostSettings
from aisandbox.builder.progress import Phases
from aisandbox.builder.targets import template
from aisandbox.manifest import REPOSITORY
from tests.marketplace import flow
from tests.marketplace.conftest import MODEL
from tests.support import hub
from tests.support.cloud import aws
from tests.support.cloud.aws import Cloud
from tests.support.cloud.hypervisor import Instance
from tests.support.machines import MANIFEST, output

GUIDE = MANIFEST.embedded_model.id
KEY = "mine"
LOG = flow.log("aws")


@pytest.fixture(scope="module")
def cloud(
    stock: tuple[Path, ...], package_sources: HostSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    sources = {Path(path): path for path in package_sources.paths}
    with aws.running(tmp_path_factory.mktemp("aws") / "cloud", stock, sources) as running:
        yield running


def variables(cloud: Cloud, **more: str) -> dict[str, str]:
    """What the tests set of the template: the double, and the image that it has."""
    return {"custom_endpoint_ec2": cloud.endpoint, "source_image": aws.STOCK_IMAGE, "upgrade": "false", **more}


def bake(cloud: Cloud, playbook: Path) -> None:
    """A bake with a playbook of the test's own."""
    environment = {**os.environ, **aws.CREDENTIALS}
    with Phases() as phases:
        targets.bake("aws", "cpu", phases, extra=variables(cloud, playbook=str(playbook)), environment=environment)


@pytest.fixture(scope="module")
def before(cloud: Cloud) -> dict[str, set[str]]:
    """What was in the account before anything was baked."""
    return cloud.inventory()


@pytest.fixture(scope="module")
def baked(cloud: Cloud, before: dict[str, set[str]], package_sources: HostSettings) -> dict[str, Any]:
    """What the API tells of the image that Packer has baked, by the real roles; `log` is Packer's output."""
    try:
        with Phases() as phases:
            record = targets.bake(
                "aws", "cpu", phases, extra=variables(cloud, upgrade="true"), tags="appliance",
                environment={**os.environ, **aws.CREDENTIALS}, settings=package_sources,
            )  # fmt: skip
    except BuildError:
        print(LOG.read_text(errors="replace")[-8000:])
        raise
    region, _, ami = record["artifact_id"].partition(":")
    assert region == aws.REGION
    (described,) = cloud.ec2.describe_images(ImageIds=[ami])["Images"]
    return {**described, "log": LOG.read_text(errors="replace")}


def snapshot_of(image: dict[str, Any]) -> str:
    return str(image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])


def test_the_image_is_registered(baked: dict[str, Any], cloud: Cloud) -> None:
    assert (baked["State"], baked["VirtualizationType"], baked["Public"]) == ("available", "hvm", False)
    # moto forgets the description, which AWS refuses when it is not ASCII.
    (description,) = re.findall(r"ami_description *= *(.*)", template.text("aws"))
    assert MANIFEST.product.name in description and description.isascii()
    tags = {tag["Key"]: tag["Value"] for tag in baked["Tags"]}
    assert (tags["version"], tags["flavour"], tags["Name"]) == (MANIFEST.product.version, "cpu", baked["Name"])
    (disk,) = cloud.ec2.describe_snapshots(SnapshotIds=[snapshot_of(baked)])["Snapshots"]
    assert not disk["Encrypted"]
    assert "Enabling Enhanced Networking (ENA)" in baked["log"]


def test_the_image_has_passed_the_check(baked: dict[str, Any]) -> None:
    assert re.search(r"passed: \d+ ok, 0 failed", baked["log"])


def test_the_bake_leaves_an_image_and_nothing_else(
    baked: dict[str, Any], cloud: Cloud, before: dict[str, set[str]]
) -> None:
    image, snapshot = {baked["ImageId"]}, {snapshot_of(baked)}
    made = {**before, "images": before["images"] | image, "snapshots": before["snapshots"] | snapshot}
    assert cloud.inventory() == made


def test_the_image_tells_nothing_of_its_builder(baked: dict[str, Any], cloud: Cloud) -> None:
    disk = cloud.region.disks[baked["ImageId"]][0]
    builder = cloud.region.get_instance(baked["SourceInstanceId"])
    for secret in (builder.id, str(builder.private_ip), builder.private_dns_name.partition(".")[0]):
        search = ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", secret, "."]
        found = subprocess.run(search, cwd=disk, capture_output=True, text=True, check=False)
        assert (found.stdout, found.returncode) == ("", 1), secret
    assert (disk / "etc/machine-id").read_text() == ""
    names = ("ssh_host_*", "authorized_keys", ".bash_history")
    assert not [path for name in names for path in disk.rglob(name) if path.is_file()]


@pytest.fixture(scope="module")
def key(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private key of the user's key pair."""
    path = tmp_path_factory.mktemp("key") / "id"
    path.touch(mode=0o600)
    path.write_text(cloud.ec2.create_key_pair(KeyName=KEY, KeyType="ed25519")["KeyMaterial"])
    return path


@pytest.fixture(scope="module")
def deployed(baked: dict[str, Any], cloud: Cloud, key: Path, model_hub: hub.Hub) -> dict[str, Instance]:
    """Instances of the image: `chosen` with a model in user-data and its name in a tag, `plain` with nothing."""
    choice = yaml.safe_dump({"aisandbox": {"model": MODEL, "hub_endpoint": model_hub.endpoint}})
    instances = {
        "chosen": deploy(cloud, key, baked["ImageId"], {"aisandbox:served_name": "tiny"}, f"#cloud-config\n{choice}"),
        "plain": deploy(cloud, key, baked["ImageId"], {}),
    }
    flow.wait_until_ready(*instances.values())
    return instances


def deploy(cloud: Cloud, key: Path, image: str, tags: dict[str, str], user_data: str | None = None) -> Instance:
    """As the AWS console does it: the key pair, tags that the instance may read, and tokens required."""
    tagged = [{"Key": name, "Value": value} for name, value in tags.items()]
    asked = cloud.ec2.run_instances(
        ImageId=image, InstanceType="g6.xlarge", KeyName=KEY, MinCount=1, MaxCount=1,
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        **({"TagSpecifications": [{"ResourceType": "instance", "Tags": tagged}]} if tags else {}),
        **({"UserData": user_data} if user_data else {}),
    )["Instances"][0]["InstanceId"]  # fmt: skip
    machine = cloud.machine(asked)
    machine.login = (MANIFEST.os.default_user, key)
    (described,) = cloud.ec2.describe_instances(InstanceIds=[asked])["Reservations"][0]["Instances"]
    assert described["PublicIpAddress"] == machine.address
    return machine


@pytest.mark.parametrize(("name", "model", "served"), [("chosen", MODEL, "tiny"), ("plain", GUIDE, GUIDE)])
def test_what_was_chosen_is_served(deployed: dict[str, Instance], name: str, model: str, served: str) -> None:
    flow.serves(deployed[name], model, served)


def test_the_choice_came_from_the_metadata_service(deployed: dict[str, Instance]) -> None:
    chosen = deployed["chosen"]
    assert output(chosen, "cloud-id") == "aws"
    assert chosen.service
    first, *others = chosen.service.requests
    assert (first.method, first.path) == ("PUT", "/latest/api/token")
    reads = [request for request in others if request.method == "GET"]
    assert all("x-aws-ec2-metadata-token" in request.headers for request in reads)
    paths = {request.path.partition("/")[2].partition("/")[2] for request in reads}
    assert {"user-data", "meta-data/tags/instance/aisandbox:served_name"} <= paths


def test_the_metadata_service_asks_for_a_token_and_the_sandbox_is_kept_from_it(deployed: dict[str, Instance]) -> None:
    ask = "curl -s -o /dev/null -w '%{http_code}' --max-time 3 http://169.254.169.254/latest/user-data"
    chosen = deployed["chosen"]
    assert output(chosen, ask) == "401"
    assert chosen.run(f"sudo --user=sandbox {ask}", check=False).stdout == "000"


def test_every_deployment_is_an_instance_of_its_own(deployed: dict[str, Instance]) -> None:
    for file in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub", "/var/lib/cloud/data/instance-id"):
        contents = {output(instance, f"cat {file}") for instance in deployed.values()}
        assert len(contents) == len(deployed), file
    # Two systemds in one control group disturb each other.
    groups = {Path(f"/proc/{instance.pid}/cgroup").read_text() for instance in deployed.values()}
    assert len(groups) == len(deployed)
    for instance in deployed.values():
        assert output(instance, "hostname") == f"ip-{instance.address.replace('.', '-')}"
        assert output(instance, f"cat /sys/class/net/{instance.place.interface}/address") == instance.place.mac


def test_only_the_users_key_pair_opens_an_instance(deployed: dict[str, Instance], key: Path) -> None:
    plain = deployed["plain"]
    derive = ["ssh-keygen", "-y", "-f", str(key)]
    public = subprocess.run(derive, capture_output=True, text=True, check=True).stdout.split()[1]
    accepted = output(plain, "sudo sh -c 'cat /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys'").splitlines()
    assert {line.split("ssh-ed25519 ")[-1].split()[0] for line in accepted} == {public}
    assert output(plain, "ls /home") == MANIFEST.os.default_user
    as_root = [argument.replace(f"{plain.user}@", "root@") for argument in plain.ssh_command("true")]
    assert subprocess.run(as_root, capture_output=True, timeout=60, check=False).returncode != 0


def test_no_unit_has_failed(deployed: dict[str, Instance]) -> None:
    for instance in deployed.values():
        assert output(instance, "systemctl list-units --failed --plain --no-legend") == ""


@pytest.fixture
def account(cloud: Cloud) -> Iterator[dict[str, set[str]]]:
    """What is in the account before a bake that fails, and must be all that is there afterwards."""
    before = cloud.inventory()
    yield before
    assert cloud.inventory() == before


@pytest.mark.usefixtures("account")
class TestNothingIsLeft:
    def test_when_provisioning_fails(self, cloud: Cloud, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="Run: .*No such file or directory"):
            bake(cloud, flow.write_playbook(tmp_path / "playbook.yml", "ls /missing"))

    @pytest.mark.parametrize(("fault", "reason"), [("no_quota", "VcpuLimitExceeded"), ("broken_images", "AMI")])
    def test_when_the_cloud_fails(self, cloud: Cloud, tmp_path: Path, fault: str, reason: str) -> None:
        setattr(cloud.region.faults, fault, True)
        try:
            with pytest.raises(BuildError, match=reason):
                bake(cloud, flow.write_playbook(tmp_path / "playbook.yml", "true"))
        finally:
            setattr(cloud.region.faults, fault, False)

    @pytest.mark.parametrize("end", ["interrupt", "kill"])
    def test_when_it_is_ended(self, cloud: Cloud, account: dict[str, set[str]], tmp_path: Path, end: str) -> None:
        playbook = flow.write_playbook(tmp_path / "playbook.yml", "sleep 300")
        with flow.start_bake("aws", variables(cloud, playbook=str(playbook)), aws.CREDENTIALS) as baking:
            assert len(cloud.inventory()["instances"] - account["instances"]) == 1
            if end == "interrupt":
                baking.send_signal(signal.SIGINT)
            else:
                flow.kill_packer(baking.pid)
            assert baking.wait(90) != 0


@pytest.mark.parametrize("missing", sorted(aws.CREDENTIALS))
def test_missing_credentials_are_named(missing: str) -> None:
    environment = {name: value for name, value in {**os.environ, **aws.CREDENTIALS}.items() if name != missing}
    command = [sys.executable, "-m", "aisandbox.builder", "image", "--target=aws"]
    result = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    (other,) = set(aws.CREDENTIALS) - {missing}
    message = result.stderr.splitlines()[0]
    assert missing in message and other not in message
    assert "Traceback" not in result.stderr
