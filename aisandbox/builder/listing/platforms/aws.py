"""AWS: a CloudFormation template, an AMI's usage notes, and the change set for the Catalog API. All of it ASCII."""

from __future__ import annotations

from typing import Any

from aisandbox.builder.listing import machine, names, ports, texts
from aisandbox.builder.listing.files import File, Files, as_json, as_yaml, choices, mismatch, optional, rendered
from aisandbox.builder.listing.ports import Door
from aisandbox.instance.choose.options import SECTION
from aisandbox.manifest import Manifest, Option

Json = dict[str, Any]
SHORT = 350
"""Most characters of the short description."""


def files(manifest: Manifest, target: str) -> Files:
    facts = {"disk_gb": machine.LEAST_DISK_GB}
    usage = rendered("aws/usage.md.j2", "usage instructions of the AMI", manifest, target, **facts)
    template = as_yaml(
        _template(manifest, target),
        "deploys the AMI by CloudFormation; also a delivery option of the product",
        f"{manifest.product.name} {manifest.product.version}: an instance with its security group.",
    )
    short = texts.fitted(manifest.listing.description, SHORT)
    return {
        "changeset.json": as_json(
            _change_set(manifest, target, usage.text),
            "new version of the product, for StartChangeSet; `make publish` fills in product, AMI and role",
        ),
        "usage.md": usage,
        "description.txt": File(f"{short}\n", f"short description (at most {SHORT} characters)"),
        "cloudformation.yaml": template,
    }


def _change_set(manifest: Manifest, target: str, usage: str) -> Json:
    product, system = manifest.product, manifest.os
    chat = manifest.ports["chat"]
    details = {
        "Version": {
            "VersionTitle": f"{product.name} {product.version}",
            "ReleaseNotes": texts.release_notes(manifest),
        },
        "DeliveryOptions": [
            {
                "Details": {
                    "AmiDeliveryOptionDetails": {
                        "AmiSource": {
                            "UserName": system.default_user,
                            "OperatingSystemName": system.family.upper(),
                            "OperatingSystemVersion": f"{system.family.capitalize()} {system.version}",
                            "ScanningPort": manifest.ports["ssh"].port,
                        },
                        "UsageInstructions": usage,
                        "RecommendedInstanceType": machine.size(manifest, target),
                        "AccessEndpointUrl": {"Port": chat.port, "Protocol": "http", "RelativePath": "/"},
                        "SecurityGroups": [
                            {
                                "IpProtocol": "tcp",
                                "FromPort": door.port,
                                "ToPort": door.port,
                                "IpRanges": ["0.0.0.0/0"],
                            }
                            for door in ports.doors(manifest)
                            if door.public
                        ],
                    }
                }
            }
        ],
    }
    change = {"ChangeType": "AddDeliveryOptions", "Entity": {"Type": "AmiProduct@1.0"}, "DetailsDocument": details}
    return {"Catalog": "AWSMarketplace", "ChangeSet": [change]}


def _template(manifest: Manifest, target: str) -> Json:
    product = manifest.product
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"{product.name} {product.version} - {product.tagline}",
        "Metadata": {"AWS::CloudFormation::Interface": _interface(manifest)},
        "Parameters": {**_machine(manifest, target), **{names.pascal(o): _parameter(o) for o in manifest.options}},
        "Conditions": _conditions(manifest),
        "Resources": _resources(manifest),
        "Outputs": _outputs(manifest),
    }


def _interface(manifest: Manifest) -> Json:
    own = ["ImageId", "InstanceType", "KeyName", "VpcId", "SubnetId", "DiskSize", "AccessFrom", "SshFrom"]
    groups = (("The machine", own), ("What to serve, and to whom", [names.pascal(o) for o in manifest.options]))
    return {
        "ParameterGroups": [{"Label": {"default": title}, "Parameters": group} for title, group in groups],
        "ParameterLabels": {names.pascal(option): {"default": option.label} for option in manifest.options},
    }


def _machine(manifest: Manifest, target: str) -> Json:
    """The parameters that describe the machine."""
    network = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$"
    sizes: Json = {
        "Type": "String",
        "Description": "Type with a GPU.",
        "Default": machine.size(manifest, target),
        "AllowedValues": list(machine.sizes(manifest, target)),
    }
    return {
        "ImageId": {"Type": "AWS::EC2::Image::Id", "Description": "AMI of the product in this region."},
        "InstanceType": sizes,
        "KeyName": {"Type": "AWS::EC2::KeyPair::KeyName", "Description": "Key pair to log in with."},
        "VpcId": {"Type": "AWS::EC2::VPC::Id", "Description": "Network of the instance."},
        "SubnetId": {"Type": "AWS::EC2::Subnet::Id", "Description": "Subnet of it that gives public addresses."},
        "DiskSize": {
            "Type": "Number",
            "Description": "Size of the root volume in GiB, with room for the models.",
            "Default": machine.DISK_GB,
            "MinValue": machine.LEAST_DISK_GB,
            "MaxValue": 16384,
        },
        "AccessFrom": {
            "Type": "String",
            "Description": "Network that may reach chat page and API, such as 203.0.113.7/32.",
            "Default": "0.0.0.0/0",
            "AllowedPattern": network,
            "ConstraintDescription": "This is no network. Example: 203.0.113.0/24.",
        },
        "SshFrom": {
            "Type": "String",
            "Description": "Network that may reach SSH.",
            "Default": "0.0.0.0/0",
            "AllowedPattern": network,
            "ConstraintDescription": "This is no network. Example: 203.0.113.0/24.",
        },
    }


def _parameter(option: Option) -> Json:
    """The option as a parameter. Patterns keep out what could end the line that the value becomes."""
    parameter: Json = {
        "Type": "String",
        "Description": option.help,
        "Default": "" if option.default is None or not option.choices else option.default,
    }
    if option.choices:
        parameter["AllowedValues"] = list(choices(option))
    else:
        parameter["AllowedPattern"] = optional(option)
        parameter["ConstraintDescription"] = mismatch(option)
    if option.type == "secret":
        parameter["NoEcho"] = True
    return parameter


def _condition(door: Door) -> str:
    return f"Opens{door.name.capitalize()}"


def _conditions(manifest: Manifest) -> Json:
    keys = manifest.options_by_key
    conditions: Json = {}
    for door in ports.doors(manifest):
        if not door.public and door.option:
            value = {"Ref": names.pascal(keys[door.option])}
            given = {"Fn::Equals": [value, door.value or ""]}
            conditions[_condition(door)] = given if door.value else {"Fn::Not": [given]}
    return conditions


def _resources(manifest: Manifest) -> Json:
    name = {"Key": "Name", "Value": {"Ref": "AWS::StackName"}}
    return {
        "SecurityGroup": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": f"Ports of {manifest.product.name}",
                "VpcId": {"Ref": "VpcId"},
                "SecurityGroupIngress": [_ingress(door) for door in ports.doors(manifest) if door.public],
                "Tags": [name],
            },
        },
        **{
            f"Ingress{door.name.capitalize()}": {
                "Type": "AWS::EC2::SecurityGroupIngress",
                "Condition": _condition(door),
                "Properties": {"GroupId": {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}, **_ingress(door)},
            }
            for door in ports.doors(manifest)
            if not door.public
        },
        "LaunchTemplate": {
            "Type": "AWS::EC2::LaunchTemplate",
            "Properties": {
                "LaunchTemplateData": {
                    # Sessions with a token only, and no further hop: containers and proxies cannot ask.
                    "MetadataOptions": {
                        "HttpTokens": "required",
                        "HttpPutResponseHopLimit": 1,
                        "InstanceMetadataTags": "enabled",
                    }
                }
            },
        },
        "Instance": {
            "Type": "AWS::EC2::Instance",
            "Properties": {
                "ImageId": {"Ref": "ImageId"},
                "InstanceType": {"Ref": "InstanceType"},
                "KeyName": {"Ref": "KeyName"},
                "SubnetId": {"Ref": "SubnetId"},
                "SecurityGroupIds": [{"Ref": "SecurityGroup"}],
                "LaunchTemplate": {
                    "LaunchTemplateId": {"Ref": "LaunchTemplate"},
                    "Version": {"Fn::GetAtt": ["LaunchTemplate", "LatestVersionNumber"]},
                },
                "BlockDeviceMappings": [
                    {
                        "DeviceName": "/dev/xvda",
                        "Ebs": {"VolumeSize": {"Ref": "DiskSize"}, "VolumeType": "gp3", "Encrypted": True},
                    }
                ],
                "UserData": {"Fn::Base64": {"Fn::Sub": _user_data(manifest)}},
                "Tags": [name],
            },
        },
    }


def _user_data(manifest: Manifest) -> str:
    """cloud-config in which every value has a line of its own, as a literal block: YAML takes it as it is.

    The patterns of the parameters allow no value that would go on on a further line.
    """
    lines = ["#cloud-config", f"{SECTION}:"]
    for option in manifest.options:
        lines += [f"  {names.plain(option)}: |2-", f"    ${{{names.pascal(option)}}}"]
    return "\n".join(lines) + "\n"


def _ingress(door: Door) -> Json:
    network: Json = {"Ref": "SshFrom" if door.name == "ssh" else "AccessFrom"}
    return {
        "IpProtocol": "tcp",
        "FromPort": door.port,
        "ToPort": door.port,
        "CidrIp": "0.0.0.0/0" if door.name == "http" else network,
        "Description": door.label,
    }


def _outputs(manifest: Manifest) -> Json:
    outputs: Json = {"InstanceId": {"Description": "The instance.", "Value": {"Ref": "Instance"}}}
    for door in ports.services(manifest):
        path = "/v1" if door.name == "api" else ""
        outputs[f"{door.name.capitalize()}Url"] = {
            "Description": door.label,
            "Value": {"Fn::Sub": f"http://${{Instance.PublicIp}}:{door.port}{path}"},
        }
    login = f"ssh {manifest.os.default_user}@${{Instance.PublicIp}}"
    return {**outputs, "Ssh": {"Description": "How to log in.", "Value": {"Fn::Sub": login}}}
