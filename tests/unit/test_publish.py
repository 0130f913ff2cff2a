"""Publishing: what a dry run shows, what is sent to doubles of the platforms' APIs, and what a refusal says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from aisandbox import manifest
from aisandbox.builder.errors import BuildError
from aisandbox.builder.publish import aws, service
from aisandbox.manifest import REPOSITORY
from tests.support import portals
from tests.support.portals import Answer, Portal

MANIFEST = manifest.load()
TOKEN = "dop_v1_" + "0123456789abcdef" * 4
PRODUCT = "prod-abcdefghijklm"
ROLE = "arn:aws:iam::123456789012:role/ingestion"


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(service, "RECORDS", tmp_path)
    return tmp_path


def digitalocean(portal: Portal) -> dict[str, str]:
    return {"DIGITALOCEAN_TOKEN": TOKEN, "DIGITALOCEAN_APP_ID": "4711", "DIGITALOCEAN_API_URL": portal.address}


def publish(target: str, image: str, environment: Mapping[str, str]) -> tuple[dict[str, object], list[str]]:
    said: list[str] = []
    return service.send(target, service.plan(target, image, environment), environment, said.append), said


# What is shown


@pytest.mark.parametrize(
    ("target", "image"),
    [("digitalocean", "123456789"), ("linode", "private/12345"), ("aws", "ami-0123456789abcdef0")],
)
def test_a_dry_run_shows_the_change_and_sends_nothing(target: str, image: str) -> None:
    names = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "HTTPS_PROXY": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "aisandbox.builder", "publish", target, "--image", image]
    shown = subprocess.run(command, env=names, capture_output=True, text=True, check=True)
    head, _, body = shown.stdout.partition("\n")
    assert head.split()[0] in ("PATCH", "POST", "StartChangeSet")
    assert json.loads(body) and image in body
    assert "Nothing was sent." in shown.stderr
    assert all(name in shown.stderr for name in MANIFEST.targets[target].publish_credentials)


def test_every_target_publishes_or_says_how() -> None:
    for name in MANIFEST.targets:
        if name not in service.PLATFORMS:
            with pytest.raises(BuildError, match="no API for listings") as refused:
                service.plan(name, "image", {})
            assert f"build/listing/{name}/README.md" in refused.value.fix
        else:
            assert MANIFEST.targets[name].publish_credentials


@pytest.mark.parametrize(
    ("target", "image"),
    [
        ("digitalocean", "snapshot-1"), ("digitalocean", "1; rm -rf /"), ("linode", "12345"), ("linode", "../../x"),
        ("aws", "ami-xyz"), ("aws", "123"), ("digitalocean", ""),
    ],
)  # fmt: skip
def test_what_is_no_image_of_the_platform_is_refused(target: str, image: str) -> None:
    with pytest.raises(BuildError):
        service.plan(target, image, {})


def test_an_unknown_target_is_told_with_the_known_ones() -> None:
    with pytest.raises(BuildError, match="no target 'digitalozean'") as refused:
        service.plan("digitalozean", "1", {})
    assert "digitalocean" in refused.value.fix


def test_missing_credentials_are_named() -> None:
    change = service.plan("aws", "ami-0123456789abcdef0", {})
    with pytest.raises(BuildError, match=r"AWS_ACCESS_KEY_ID and .*AWS_MARKETPLACE_ACCESS_ROLE_ARN"):
        service.send("aws", change, {"AWS_SECRET_ACCESS_KEY": "x"}, print)


# DigitalOcean


def test_digitalocean_gets_the_new_version(records: Path) -> None:
    with portals.serving(portals.digitalocean(TOKEN, "4711", {123: "available"})) as portal:
        answer, said = publish("digitalocean", "123", digitalocean(portal))
    assert answer == {"app": {"id": "4711", "status": "pending", "version": MANIFEST.product.version}}
    (call,) = portal.changes()
    assert call.method == "PATCH" and call.body["imageId"] == 123
    assert call.body["version"] == MANIFEST.product.version and call.body["reasonForUpdate"]
    named = {entry["name"] for entry in call.body["softwareIncluded"]}
    assert {"vLLM", "Open WebUI"} <= named
    assert said == ["snapshot image-123 is there"]
    record = (records / "digitalocean.json").read_text()
    assert json.loads(record)["answer"] == answer
    assert TOKEN not in record


def test_digitalocean_waits_out_a_limit() -> None:
    busy = Answer(429, {"id": "too_many_requests", "message": "API Rate limit exceeded."}, {"Retry-After": "0"})
    with portals.serving(portals.digitalocean(TOKEN, "4711", {123: "available"})) as portal:
        portal.faults += [busy, busy]
        publish("digitalocean", "123", digitalocean(portal))
    assert len(portal.changes()) == 1


@pytest.mark.parametrize(
    ("variables", "images", "state", "words"),
    [
        ({"DIGITALOCEAN_TOKEN": "wrong"}, {123: "available"}, "active", "401 Unable to authenticate you"),
        ({}, {}, "active", "404 The resource you requested could not be found"),
        ({}, {123: "pending"}, "active", "snapshot, pending"),
        ({}, {123: "available"}, "in-review", "400 app is in-review and cannot be updated"),
        ({"DIGITALOCEAN_APP_ID": "1"}, {123: "available"}, "active", "404 Not found"),
        ({"DIGITALOCEAN_TOKEN": "two\nlines"}, {123: "available"}, "active", "is no access token"),
    ],
)
def test_what_digitalocean_refuses_is_told(
    variables: dict[str, str], images: dict[int, str], state: str, words: str, records: Path
) -> None:
    with (
        portals.serving(portals.digitalocean(TOKEN, "4711", images, state)) as portal,
        pytest.raises(BuildError, match=words) as refused,
    ):
        publish("digitalocean", "123", digitalocean(portal) | variables)
    assert refused.value.fix
    assert TOKEN not in str(refused.value)
    assert not list(records.iterdir())


def test_answers_that_are_none() -> None:
    with portals.serving(portals.digitalocean(TOKEN, "4711", {123: "available"})) as portal:
        portal.faults += [Answer(200, b"<html>", {"Content-Type": "text/html"})]
        with pytest.raises(BuildError, match=r"is no snapshot|refused"):
            publish("digitalocean", "123", digitalocean(portal))
        portal.faults += [Answer(302, {}, {"Location": "http://127.0.0.1:9/"})]
        with pytest.raises(BuildError, match="302"):
            publish("digitalocean", "123", digitalocean(portal))
    with pytest.raises(BuildError, match="cannot be reached"):
        publish("digitalocean", "123", digitalocean(portal))


# Linode


def test_linode_gets_the_script_and_its_next_revision() -> None:
    scripts: dict[int, portals.Json] = {}
    with portals.serving(portals.linode(TOKEN, ("private/1", "private/2"), scripts)) as portal:
        environment = {"LINODE_TOKEN": TOKEN, "LINODE_URL": portal.address}
        answer, _ = publish("linode", "private/1", environment)
        assert answer["id"] == 1 and scripts[1]["images"] == ["private/1"]
        publish("linode", "private/2", environment | {"LINODE_STACKSCRIPT_ID": "1"})
        with pytest.raises(BuildError, match="404 Not found"):
            publish("linode", "private/2", environment | {"LINODE_STACKSCRIPT_ID": "7"})
        with pytest.raises(BuildError, match="404 Not found"):
            publish("linode", "private/3", environment)
    assert list(scripts) == [1] and scripts[1]["images"] == ["private/2"]
    assert [call.method for call in portal.changes()] == ["POST", "PUT", "PUT"]
    for option in MANIFEST.options:
        assert f'name="{option.key}' in scripts[1]["script"]


# AWS


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An AMI at moto."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    ec2 = boto3.client("ec2", aws_access_key_id="x", aws_secret_access_key="y", region_name=aws.REGION)
    yield ec2.register_image(Name="ours", RootDeviceName="/dev/sda1")["ImageId"]
    server.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws, "POLL_SECONDS", 0.01)


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
    "AWS_MARKETPLACE_PRODUCT_ID": PRODUCT,
    "AWS_MARKETPLACE_ACCESS_ROLE_ARN": ROLE,
}


@pytest.mark.usefixtures("quick")
def test_aws_gets_a_change_set_once(image: str, monkeypatch: pytest.MonkeyPatch, records: Path) -> None:
    with portals.serving(portals.aws_catalog(PRODUCT)) as portal:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MARKETPLACE_CATALOG", portal.address)
        answer, said = publish("aws", image, CREDENTIALS)
        again, _ = publish("aws", image, CREDENTIALS)
    assert answer == again == {"ChangeSetId": "cs-0", "Status": "SUCCEEDED"}
    assert [line.rsplit(": ", 1)[-1] for line in said[1:]] == ["preparing", "applying", "succeeded"]
    body = portal.changes()[0].body
    assert body["Catalog"] == aws.CATALOG
    (change,) = body["ChangeSet"]
    document = change["DetailsDocument"]
    source = document["DeliveryOptions"][0]["Details"]["AmiDeliveryOptionDetails"]["AmiSource"]
    assert (change["ChangeType"], source["AmiId"], source["AccessRoleArn"]) == ("AddDeliveryOptions", image, ROLE)
    assert json.dumps(body).isascii()
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in (records / "aws.json").read_text()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("variables", "outcome", "words"),
    [
        ({"AWS_MARKETPLACE_PRODUCT_ID": "prod-zzz"}, "SUCCEEDED", "ResourceNotFoundException: Entity prod-zzz"),
        ({}, "FAILED", "SCAN_ERROR: The AMI holds a password"),
        ({}, "CANCELLED", "cancelled"),
    ],
)
def test_what_aws_refuses_is_told(
    image: str, variables: dict[str, str], outcome: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with portals.serving(portals.aws_catalog(PRODUCT, outcome)) as portal:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MARKETPLACE_CATALOG", portal.address)
        with pytest.raises(BuildError, match=words) as refused:
            publish("aws", image, CREDENTIALS | variables)
    assert refused.value.fix


def test_aws_is_not_asked_for_an_image_that_is_not_there(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert image
    with portals.serving(portals.aws_catalog(PRODUCT)) as portal:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MARKETPLACE_CATALOG", portal.address)
        with pytest.raises(BuildError, match="InvalidAMIID.NotFound") as refused:
            publish("aws", "ami-0123456789abcdef0", CREDENTIALS)
    assert "make image TARGET=aws" in refused.value.fix
    assert not portal.calls
