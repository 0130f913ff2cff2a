"""AWS's EC2 where Packer does not reach: what is done about an AMI after its bake, or after one that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aisandbox.builder.errors import BuildError
from aisandbox.builder.targets import template


def region(variables: Mapping[str, str]) -> str:
    """Region of a bake with these variables of the template."""
    return variables.get("region") or template.default(template.text("aws"), "region")


def client(variables: Mapping[str, str], environment: Mapping[str, str]) -> Any:
    """EC2 as the bake with these variables sees it; `environment` has the credentials."""
    import boto3  # takes a moment, and is seldom needed

    return boto3.client(
        "ec2",
        region_name=region(variables),
        endpoint_url=variables.get("custom_endpoint_ec2") or None,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
    )


def require_imdsv2(image: str, variables: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Have instances of an AMI ask for sessions at their metadata service, unless their owners say otherwise.

    Args:
        image: its id, as Packer's record has it: `REGION:AMI`.

    Raises:
        BuildError: AWS refused; the AMI is there all the same.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    name = image.rpartition(":")[2]
    try:
        client(variables, environment).modify_image_attribute(ImageId=name, ImdsSupport={"Value": "v2.0"})
    except (BotoCoreError, ClientError) as error:
        raise BuildError(
            f"the AMI {name} is made, but AWS did not let it require version 2 of the metadata service: {error}",
            f"aws ec2 modify-image-attribute --region {region(variables)} --image-id {name} --imds-support v2.0",
        ) from error
