"""AWS Marketplace: a new version of an AMI product by a change set of the Catalog API.

Source: AWS Marketplace Catalog API, AddDeliveryOptions of AmiProduct@1.0.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import time
from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aisandbox.builder.errors import BuildError
from aisandbox.builder.publish.change import Change, Environment, RefusedError, setting

PRODUCT, ROLE = "AWS_MARKETPLACE_PRODUCT_ID", "AWS_MARKETPLACE_ACCESS_ROLE_ARN"
NAME = "AWS Marketplace"
BODY = "changeset.json"
REGION = "us-east-1"
"""The catalogue's only region, and the one that source images must lie in."""
CATALOG = "AWSMarketplace"
IMAGE = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})")
POLL_SECONDS = 15.0
PATIENCE_SECONDS = 3 * 3600.0
"""The scan of an image takes an hour or two."""


def change(body: dict[str, Any], image: str, environment: Environment) -> Change:
    """The product's new version, made from an AMI."""
    if not IMAGE.fullmatch(image):
        raise BuildError(f"{image!r} is no AMI", "give its id: IMAGE=ami-0123456789abcdef0")
    filled = copy.deepcopy(body)
    for entry in filled["ChangeSet"]:
        entry["Entity"]["Identifier"] = setting(environment, PRODUCT)
        for option in entry["DetailsDocument"]["DeliveryOptions"]:
            source = option["Details"]["AmiDeliveryOptionDetails"]["AmiSource"]
            source |= {"AmiId": image, "AccessRoleArn": setting(environment, ROLE)}
    return Change(f"StartChangeSet at catalog.marketplace.{REGION}.amazonaws.com", filled)


def send(change: Change, environment: Environment, say: Callable[[str], None]) -> dict[str, Any]:
    """Start the change set and wait until AWS has scanned and taken it."""
    session = boto3.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        region_name=REGION,
    )
    # The same change sent twice is one change.
    token = hashlib.sha256(json.dumps(change.body, sort_keys=True).encode()).hexdigest()[:36]
    try:
        _check_image(session, change)
        catalog = session.client("marketplace-catalog")
        started = catalog.start_change_set(**change.body, ClientRequestToken=token)
        say(f"change set {started['ChangeSetId']} is under way; AWS works on it, also without us")
        return _wait(catalog, str(started["ChangeSetId"]), say)
    except ClientError as error:
        facts, trace = error.response["Error"], error.response["ResponseMetadata"].get("RequestId")
        raise RefusedError(NAME, f"{facts['Code']}: {facts['Message']}", _fix(facts["Code"]), trace) from error
    except BotoCoreError as error:
        raise BuildError(f"{NAME} cannot be asked: {error}", "check network and credentials, then repeat") from error


def _check_image(session: boto3.Session, change: Change) -> None:
    delivery = change.body["ChangeSet"][0]["DetailsDocument"]["DeliveryOptions"][0]
    image = delivery["Details"]["AmiDeliveryOptionDetails"]["AmiSource"]["AmiId"]
    found = session.client("ec2").describe_images(ImageIds=[image])["Images"][0]
    if found["State"] != "available":
        raise BuildError(f"{image} is {found['State']}", "wait until it is available, then repeat")


def _wait(catalog: Any, change_set: str, say: Callable[[str], None]) -> dict[str, Any]:
    deadline, before = time.monotonic() + PATIENCE_SECONDS, ""
    look = f"aws marketplace-catalog describe-change-set --catalog {CATALOG} --change-set-id {change_set}"
    while time.monotonic() < deadline:
        facts = catalog.describe_change_set(Catalog=CATALOG, ChangeSetId=change_set)
        if facts["Status"] != before:
            before = facts["Status"]
            say(f"{change_set}: {before.lower()}")
        if before == "SUCCEEDED":
            return {"ChangeSetId": change_set, "Status": before}
        if before in ("FAILED", "CANCELLED"):
            errors = [error for entry in facts["ChangeSet"] for error in entry.get("ErrorDetailList", ())]
            words = "; ".join(f"{error['ErrorCode']}: {error['ErrorMessage']}" for error in errors)
            reason = words or facts.get("FailureDescription") or before.lower()
            raise RefusedError(NAME, reason, f"mend it, then repeat; details: {look}", change_set)
        time.sleep(POLL_SECONDS)
    raise BuildError(f"{change_set} is not decided after {PATIENCE_SECONDS / 3600:.0f} hours", look)


def _fix(code: str) -> str:
    if code == "ResourceInUseException":
        return "another change of this product is under way: wait for it, then repeat"
    if code in ("UnrecognizedClientException", "InvalidClientTokenId", "AccessDeniedException", "AuthFailure"):
        return "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of somebody who may change the catalogue"
    if code.startswith("InvalidAMIID"):
        return f"bake it in {REGION}: make image TARGET=aws"
    return "mend what it says, then repeat: nothing was changed"
