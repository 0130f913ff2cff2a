"""DigitalOcean from end to end: Packer bakes on a pretended cloud with real machines, and the snapshot is deployed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from aisandbox.builder import targets
from aisandbox.builder.errors import BuildError
from aisandbox.builder.host import HostSettings
from aisandbox.builder.image import IMAGES
from aisandbox.builder.machine import make_key
from aisandbox.builder.progress import Phases
from tests.marketplace import flow
from tests.marketplace.conftest import MODEL
from tests.support import hub
from tests.support.cloud.digitalocean import DigitalOcean, Faults
from tests.support.cloud.hypervisor import Instance
from tests.support.machines import MANIFEST, output, wait_for

GUIDE = MANIFEST.embedded_model.id
SLUG = "debian-12-x64"
SIZE = "s-1vcpu-2gb"
RECORD = IMAGES / "digitalocean" / "manifest.json"
LOG = flow.log("digitalocean")
KEYS = "sudo sh -c 'cat /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys'"


@pytest.fixture(scope="module")
def cloud(
    stock: tuple[Path, ...], package_sources: HostSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DigitalOcean]:
    files = {Path(path): path for path in package_sources.paths}
    with DigitalOcean(tmp_path_factory.mktemp("cloud") / "digitalocean", {SLUG: stock}, files) as running:
        yield running


def variables(cloud: DigitalOcean, **more: str) -> dict[str, str]:
    """What the tests set of the template: the double, and a plan that it has."""
    return {"api_url": cloud.url, "source_image": SLUG, "size": SIZE, "upgrade": "false", **more}


def credentials(cloud: DigitalOcean) -> dict[str, str]:
    return {"DIGITALOCEAN_TOKEN": cloud.token}


def bake(cloud: DigitalOcean, **more: str) -> None:
    """A bake that is none of an appliance."""
    environment = {**os.environ, **credentials(cloud)}
    with Phases() as phases:
        targets.bake("digitalocean", "cpu", phases, extra=variables(cloud, **more), environment=environment)


@dataclass
class Builder:
    """What somebody sees of the droplet on which the image is baked."""

    host_keys: set[str] = field(default_factory=set)
    public_keys: set[str] = field(default_factory=set)
    address: str = ""


def watch(cloud: DigitalOcean, builder: Builder, done: threading.Event) -> None:
    """Look at the builder from outside until it has shown its host keys."""
    while not done.wait(0.5) and not builder.host_keys:
        keys = [key["public_key"] for key in list(cloud.keys.values())]
        keys += [path.read_text() for path in RECORD.parent.glob(".*/*.pub")]
        builder.public_keys |= {key.split()[1] for key in keys}
        for droplet in list(cloud.droplets.values()):
            if droplet.instance:
                builder.address = droplet.instance.address
                scan = ["ssh-keyscan", "-T", "2", builder.address]
                lines = subprocess.run(scan, capture_output=True, text=True, check=False).stdout.splitlines()
                builder.host_keys |= {line.split()[2] for line in lines if not line.startswith("#")}


@dataclass(frozen=True)
class Baked:
    record: dict[str, Any]
    builder: Builder
    events: list[str]
    leftovers: list[str]

    @property
    def snapshot(self) -> int:
        return int(self.record["artifact_id"].partition(":")[2])


@pytest.fixture(scope="module")
def baked(cloud: DigitalOcean, package_sources: HostSettings) -> Baked:
    """The image that Packer has baked, by the real roles."""
    builder, done = Builder(), threading.Event()
    watcher = threading.Thread(target=watch, args=(cloud, builder, done))
    watcher.start()
    try:
        with Phases() as phases:
            record = targets.bake(
                "digitalocean", "cpu", phases, extra=variables(cloud, upgrade="true"), tags="appliance",
                environment={**os.environ, **credentials(cloud)}, settings=package_sources,
            )  # fmt: skip
    except BuildError:
        print(LOG.read_text(errors="replace")[-8000:])
        raise
    finally:
        done.set()
        watcher.join()
    return Baked(record, builder, list(cloud.events), cloud.leftovers)


def test_the_bake_leaves_a_snapshot_and_nothing_else(baked: Baked, cloud: DigitalOcean) -> None:
    image = cloud.snapshots[baked.snapshot]
    assert baked.leftovers == [f"snapshot {image.name}"]
    wait_for("the builder's end", lambda: not cloud.hypervisor.instances, 30)
    assert baked.record["artifact_id"] == f"{image.regions[0]}:{image.id}"
    assert image.name.startswith(f"{MANIFEST.product.id}-")


def test_the_builder_is_shut_down_in_order_before_the_snapshot(baked: Baked) -> None:
    assert baked.events == ["create", "shutdown", "snapshot"]


def test_the_record_is_kept(baked: Baked) -> None:
    assert json.loads(RECORD.read_text())["builds"][-1] == baked.record
    assert baked.record["custom_data"]["version"] == MANIFEST.product.version


def test_the_snapshot_tells_nothing_of_its_builder(baked: Baked, cloud: DigitalOcean) -> None:
    disk = cloud.snapshots[baked.snapshot].snapshot.directory
    assert len(baked.builder.public_keys) == 2 and baked.builder.host_keys
    secrets = {cloud.token, baked.builder.address, *baked.builder.public_keys, *baked.builder.host_keys}
    for secret in secrets:
        search = ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", "--", secret, "."]
        found = subprocess.run(search, cwd=disk, capture_output=True, text=True, check=False)
        assert (found.stdout, found.returncode) == ("", 1), secret
    assert (disk / "etc/machine-id").read_text() == ""
    names = ("ssh_host_*", "authorized_keys", ".bash_history", "*_Packages", "droplet-agent*")
    assert not [path for name in names for path in disk.rglob(name) if path.is_file()]
    assert not [path for path in (disk / "var/log").rglob("*") if path.is_file() and path.stat().st_size]


class Customer:
    """Somebody who deploys from the account, by the API."""

    def __init__(self, cloud: DigitalOcean, folder: Path) -> None:
        self.cloud, self.private_key = cloud, make_key(folder)
        self.client = httpx.Client(base_url=cloud.url, headers={"Authorization": f"Bearer {cloud.token}"})
        self.public_key = self.private_key.with_suffix(".pub").read_text().strip()
        self.key = self._post("/v2/account/keys", name="mine", public_key=self.public_key)["ssh_key"]["id"]

    def deploy(self, name: str, image: int, user_data: str | None = None) -> Instance:
        """A droplet of a snapshot, once the API tells its address."""
        wanted = {"region": "nyc3", "size": SIZE, "image": image, "ssh_keys": [self.key], "tags": ["mine"]}
        number = self._post("/v2/droplets", name=name, user_data=user_data, **wanted)["droplet"]["id"]
        wait_for("an active droplet", lambda: self.droplet(number)["status"] == "active", 30)
        instance = self.cloud.hypervisor.instances[str(number)]
        assert self.droplet(number)["networks"]["v4"][0]["ip_address"] == instance.address
        instance.login = (MANIFEST.os.default_user, self.private_key)
        return instance

    def droplet(self, number: int) -> dict[str, Any]:
        droplet: dict[str, Any] = self.client.get(f"/v2/droplets/{number}").json()["droplet"]
        return droplet

    def _post(self, path: str, **body: object) -> dict[str, Any]:
        response = self.client.post(path, json=body)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture(scope="module")
def customer(cloud: DigitalOcean, tmp_path_factory: pytest.TempPathFactory) -> Customer:
    return Customer(cloud, tmp_path_factory.mktemp("customer"))


@pytest.fixture(scope="module")
def deployed(baked: Baked, customer: Customer, model_hub: hub.Hub) -> dict[str, Instance]:
    """Droplets of the snapshot: `chosen` with a model in its user-data, `plain` with no user-data at all."""
    choice = {"model": MODEL, "hub_endpoint": model_hub.endpoint, "served_name": "tiny"}
    instances = {
        "chosen": customer.deploy("chosen", baked.snapshot, "#cloud-config\n" + yaml.safe_dump({"aisandbox": choice})),
        "plain": customer.deploy("plain", baked.snapshot),
    }
    flow.wait_until_ready(*instances.values())
    return instances


@pytest.mark.parametrize(("name", "model", "served"), [("chosen", MODEL, "tiny"), ("plain", GUIDE, GUIDE)])
def test_what_was_chosen_is_served(deployed: dict[str, Instance], name: str, model: str, served: str) -> None:
    flow.serves(deployed[name], model, served)


@pytest.mark.parametrize("name", ["chosen", "plain"])
def test_cloud_init_is_done_with_the_platforms_data(deployed: dict[str, Instance], name: str) -> None:
    instance = deployed[name]
    assert output(instance, "cloud-id") == "configdrive"
    assert output(instance, "hostname") == name
    result = json.loads(output(instance, "cat /run/cloud-init/result.json"))["v1"]
    assert (result["errors"], "/config-drive" in result["datasource"]) == ([], True)
    assert output(instance, f"cat /sys/class/net/{instance.place.interface}/address") == instance.place.mac


def test_the_metadata_service_answers_each_droplet_about_itself(deployed: dict[str, Instance]) -> None:
    told = {
        name: json.loads(output(instance, "curl -sf http://169.254.169.254/metadata/v1.json"))
        for name, instance in deployed.items()
    }
    for name, instance in deployed.items():
        assert told[name]["hostname"] == name
        assert told[name]["interfaces"]["public"][0]["ipv4"]["ip_address"] == instance.address
    assert "served_name: tiny" in told["chosen"]["user_data"]
    assert "user_data" not in told["plain"]


def test_the_sandbox_cannot_ask_the_metadata_service(deployed: dict[str, Instance]) -> None:
    ask = "sudo --user=sandbox curl -s --max-time 3 http://169.254.169.254/metadata/v1.json"
    assert deployed["chosen"].run(ask, check=False).stdout == ""


def test_every_droplet_is_an_instance_of_its_own(deployed: dict[str, Instance], baked: Baked) -> None:
    for file in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub", "/var/lib/cloud/data/instance-id"):
        contents = {output(instance, f"cat {file}") for instance in deployed.values()}
        assert len(contents) == len(deployed), file
    for instance in deployed.values():
        keys = output(instance, "cat /etc/ssh/ssh_host_*_key.pub").splitlines()
        assert not {key.split()[1] for key in keys} & baked.builder.host_keys


def test_only_the_customers_key_opens_a_droplet(deployed: dict[str, Instance], customer: Customer) -> None:
    for instance in deployed.values():
        lines = output(instance, KEYS).splitlines()
        assert lines
        assert {line.split("ssh-ed25519 ")[-1].split()[0] for line in lines} == {customer.public_key.split()[1]}


def test_no_unit_has_failed(deployed: dict[str, Instance]) -> None:
    for instance in deployed.values():
        assert output(instance, "systemctl list-units --failed --plain --no-legend") == ""


@pytest.fixture
def account(cloud: DigitalOcean) -> Iterator[None]:
    """What is in the account before a bake that fails is all that is there afterwards."""
    before, machines = cloud.leftovers, set(cloud.hypervisor.instances)
    yield
    cloud.faults = Faults()
    assert cloud.leftovers == before
    wait_for("the machine's end", lambda: set(cloud.hypervisor.instances) <= machines, 30)


@pytest.mark.usefixtures("account")
class TestNothingIsLeft:
    def test_of_a_bake_with_a_wrong_token(self, cloud: DigitalOcean) -> None:
        wrong = {**os.environ, "DIGITALOCEAN_TOKEN": "dop_v1_wrong"}
        with pytest.raises(BuildError, match="DIGITALOCEAN_TOKEN"), Phases() as phases:
            targets.bake("digitalocean", "cpu", phases, extra=variables(cloud), environment=wrong)

    def test_of_a_bake_that_the_cloud_refuses(self, cloud: DigitalOcean) -> None:
        cloud.faults.create = "creating this/these droplet(s) will exceed your droplet limit"
        with pytest.raises(BuildError, match="will exceed your droplet limit"):
            bake(cloud)

    def test_of_a_bake_with_too_many_requests(self, cloud: DigitalOcean) -> None:
        cloud.faults.limited = 1
        with pytest.raises(BuildError, match="API Rate limit exceeded"):
            bake(cloud)

    def test_when_provisioning_fails(self, cloud: DigitalOcean, tmp_path: Path) -> None:
        playbook = flow.write_playbook(tmp_path / "playbook.yml", "ls /missing")
        with pytest.raises(BuildError, match="Run: .*No such file or directory"):
            bake(cloud, playbook=str(playbook))

    def test_when_the_snapshot_fails(self, cloud: DigitalOcean, tmp_path: Path) -> None:
        playbook = flow.write_playbook(tmp_path / "playbook.yml", "true")
        cloud.faults.errored = {"snapshot"}
        with pytest.raises(BuildError, match="snapshot"):
            bake(cloud, playbook=str(playbook), snapshot_timeout="5s")

    @pytest.mark.parametrize("moment", ["provisioning", "snapshot"])
    def test_of_an_interrupted_bake(self, cloud: DigitalOcean, tmp_path: Path, moment: str) -> None:
        playbook = flow.write_playbook(tmp_path / "playbook.yml", "sleep 300" if moment == "provisioning" else "true")
        cloud.faults.seconds = {"snapshot": 4}
        with flow.start_bake("digitalocean", variables(cloud, playbook=str(playbook)), credentials(cloud)) as baking:
            if moment == "snapshot":
                wait_for("the snapshot", lambda: "Waiting for snapshot" in LOG.read_text(errors="replace"), 120)
            assert any(droplet.status != "new" for droplet in cloud.droplets.values())
            baking.send_signal(signal.SIGINT)
            assert baking.wait(60) != 0

    def test_of_a_bake_whose_packer_is_killed(self, cloud: DigitalOcean, tmp_path: Path) -> None:
        """Packer's temporary key alone stays: nobody has its private half, and nothing tells whose it was."""
        playbook = flow.write_playbook(tmp_path / "playbook.yml", "sleep 300")
        known = set(cloud.keys)
        with flow.start_bake("digitalocean", variables(cloud, playbook=str(playbook)), credentials(cloud)) as baking:
            flow.kill_packer(baking.pid)
            assert baking.wait(60) != 0
        (temporary,) = set(cloud.keys) - known
        assert cloud.keys.pop(temporary)["name"].startswith("packer-")
