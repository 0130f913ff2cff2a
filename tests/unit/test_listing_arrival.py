"""What is filled in on a platform arrives on the instance: forms, scripts and templates are carried out.

Hostile values are among it. The yardstick is the same choice given directly: a channel must lead to the same decision,
or refuse the value itself.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from aisandbox import manifest as manifests
from aisandbox.builder import listing
from aisandbox.builder.listing import names
from aisandbox.builder.listing.formats import VENDOR_PART
from aisandbox.instance.choose import options
from aisandbox.instance.choose.options import Choice, Source, container
from aisandbox.instance.places import PROGRAMS, Places
from aisandbox.instance.run.container import environment as given_variables
from tests.support import appliance, arm, cloudformation, metadata

MANIFEST = manifests.load()
KEYS = MANIFEST.options_by_key

GOOD = {
    "model": "Qwen/Qwen3-8B",
    "revision": "refs/pr-1.2_3",
    "hf_token": "hf_0123456789abcdef",
    "served_name": "mine:8b/x",
    "max_model_len": "4096",
    "quantization": "fp8",
    "vllm_args": """--limit-mm-per-prompt '{"image": 2, "video": 0}' --max-num-seqs=64""",
    "api_key": "0123456789.abcdef~_-",
    "chat_email": "a.b+c%d@example.com",
    "chat_password": """it's"$(id)`id`${HOME}\\&%#!{}[]:|>""",
    "allowed_cidrs": "203.0.113.7, 2001:db8::/48",
    "domain": "ai.example.com",
    "tls_email": "me@example.com",
    "host_names": "ai.example.com, *.example.org",
    "sandbox": "public",
    "data_volume": "LABEL=data",
    "hub_endpoint": "http://hub.example.com:8080/a~b",
}
"""Every option, with values that need care and yet are allowed."""

HOSTILE = [
    """it's "quoted" and 'quoted'""",
    "$(touch executed)",
    "`touch executed`",
    "${HOME}${Model}$$",
    "a\nb: c\n- d",
    "Org/Name\napi_key: long-enough-for-a-key",
    "Org/Name\r\nX='",
    "ends-in-a-backslash\\",
    "'",
    "''",
    "'\\''",
    '"',
    '"; touch executed; "',
    "#comment",
    "key: [value, {a: *b}]",
    "!!python/object:os.system",
    "yes",
    "~",
    "0123456789",
    "&\\&%s%n\\1",
    "tab\tand\x0bvertical",
    "\x01\x1b[31m",
    "Org/N\u00e4me",
    "Org/Name\u2028api_key=long-enough-for-a-key",
    "{{ds.meta_data}}{%raw%}",
    "</script><b>",
    "long-enough-password ",
    " Qwen/Qwen3-8B ",
    "x" * 4000,
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("listing")
    listing.write(MANIFEST, folder, set(MANIFEST.targets) - {"qemu"})
    return folder


def instance(root: Path) -> Places:
    """An instance that nobody has configured."""
    return appliance.make(root)


def decided(places: Places) -> Choice:
    choice, _ = options.read(places, MANIFEST)
    return choice


def direct(values: Mapping[str, str]) -> Choice:
    """The choice that the values make when nothing lies between."""
    return options.choose([Source("direct", dict(values))], MANIFEST)[0]


def everywhere(value: str) -> dict[str, str]:
    return dict.fromkeys(KEYS, value)


def by_cloud_init(places: Places, user_data: str) -> Choice:
    """The choice of an instance whose cloud-init got that user-data."""
    assert user_data.startswith("#cloud-config\n")
    places.cloud_instance.mkdir(parents=True)
    (places.cloud_instance / "user-data.txt").write_text(user_data)
    (places.cloud_instance / "user-data.txt.i").write_text(f"Content-Type: text/cloud-config\n\n{user_data}")
    try:
        merged = yaml.safe_load(user_data)
    except yaml.YAMLError:
        merged = {}  # cloud-init goes on without it
    (places.cloud_instance / "cloud-config.txt").write_text("#cloud-config\n" + yaml.safe_dump(merged, width=10**6))
    return decided(places)


def not_executed(*folders: Path) -> bool:
    return not any((folder / "executed").exists() for folder in (*folders, Path.cwd(), Path("/")))


# Akamai


def run_script(script: str, root: Path, environment: Mapping[str, str], installed: bool = True) -> str:
    """Run a deployment script as root of an instance whose /etc and /usr/local/bin are folders below `root`."""
    etc, programs = root / "etc", root / "programs"
    for folder in (etc, programs):
        folder.mkdir(parents=True, exist_ok=True)
    if installed:
        command = programs / "aisandbox"
        command.write_text(f'#!/bin/sh\necho "$@" >>{root}/called\n')
        command.chmod(0o755)
    file = root / "script"
    file.write_text(script)
    enter = f"mount --bind {etc} /etc && mount --bind {programs} /usr/local/bin && cd {root} && exec bash {file}"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", enter],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def by_stackscript(written: Path, root: Path, values: Mapping[str, str], *, capital: bool = True) -> Choice:
    """Akamai hands the fields over as environment variables, and keeps whatever was typed."""
    script = json.loads((written / "linode" / "stackscript.json").read_text())["script"]
    fields = {names.stackscript(KEYS[key]): value for key, value in values.items()}
    environment = {key.upper() if capital else key: value for key, value in fields.items()}
    said = run_script(script, root, environment)
    places = dataclasses.replace(instance(root / "instance"), etc=root / "etc" / "aisandbox")
    assert places.udf.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in places.etc.iterdir()] == ["udf.env"]
    assert (root / "called").read_text() == "configure\n"
    assert "shows the progress" in said
    assert not any(value in said for key, value in values.items() if KEYS[key].type == "secret" and len(value) > 9)
    return decided(places)


@pytest.mark.parametrize("capital", [True, False])
def test_every_field_of_the_stackscript_arrives(written: Path, tmp_path: Path, capital: bool) -> None:
    choice = by_stackscript(written, tmp_path, GOOD, capital=capital)
    assert choice == direct(GOOD)
    assert choice.chat_password
    assert choice.chat_password.get_secret_value() == GOOD["chat_password"]
    assert choice.closed == frozenset()


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:30])
def test_hostile_fields_of_the_stackscript_do_what_they_would_do_directly(
    written: Path, tmp_path: Path, value: str
) -> None:
    assert by_stackscript(written, tmp_path, everywhere(value)) == direct(everywhere(value))
    assert not_executed(tmp_path)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.fixed_dictionaries(
        {
            key: st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
            for key in ("model", "chat_password", "vllm_args", "allowed_cidrs", "sandbox")
        }
    )
)
def test_whatever_is_typed_into_the_stackscripts_form_does_what_it_would_do_directly(
    written: Path, tmp_path: Path, values: dict[str, str]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        assert by_stackscript(written, Path(folder), values) == direct(values)


def test_a_stackscript_without_choices_leaves_all_to_the_appliance(written: Path, tmp_path: Path) -> None:
    fields = {"quantization": "default", "sandbox": "local", "model": "", "chat_password": " "}
    assert by_stackscript(written, tmp_path, fields) == Choice()


def test_a_stackscript_writes_anew_what_is_there(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "etc" / "aisandbox"
    folder.mkdir(parents=True)
    (folder / "udf.env").write_text("MODEL=Old/Model\n")
    assert by_stackscript(written, tmp_path, {"revision": "main"}).model is None


def test_a_stackscript_says_when_the_image_is_another_one(written: Path, tmp_path: Path) -> None:
    script = (written / "linode" / "stackscript.sh").read_text()
    with pytest.raises(AssertionError, match="the image has no AI Sandbox: deploy this StackScript with the image"):
        run_script(script, tmp_path, {"MODEL": "a/b"}, installed=False)
    assert not (tmp_path / "etc" / "aisandbox").exists()


# Vultr


def by_vultr(written: Path, root: Path, values: Mapping[str, str]) -> Choice:
    variables = json.loads((written / "vultr" / "variables.json").read_text())
    given = {variable["name"]: values.get(variable["name"], "") for variable in variables}
    places = instance(root)
    places.cloud_run.mkdir(parents=True)
    (places.cloud_run / "cloud-id").write_text("vultr\n")
    with metadata.serving(metadata.vultr(given)) as double:
        return decided(dataclasses.replace(places, metadata=double.address))


def test_every_variable_of_vultr_arrives(written: Path, tmp_path: Path) -> None:
    assert by_vultr(written, tmp_path, GOOD) == direct(GOOD)
    assert by_vultr(written, tmp_path / "none", {}) == Choice()


def test_hostile_variables_of_vultr_do_what_they_would_do_directly(written: Path, tmp_path: Path) -> None:
    for number, value in enumerate(HOSTILE):
        assert by_vultr(written, tmp_path / str(number), everywhere(value)) == direct(everywhere(value)), value


def test_vultrs_vendor_script_asks_again_or_explains_itself(written: Path, tmp_path: Path) -> None:
    config, _, script = (written / "vultr" / "imageless.txt").read_text().partition(VENDOR_PART)
    assert yaml.safe_load(config) == {"ssh_pwauth": False}
    run_script(script, tmp_path / "ours", {})
    assert (tmp_path / "ours" / "called").read_text() == "configure\n"
    with pytest.raises(AssertionError, match="has no AI Sandbox: build the application from the snapshot"):
        run_script(script, tmp_path / "other", {}, installed=False)
    assert "has no AI Sandbox" in (tmp_path / "other" / "etc" / "motd").read_text()


# AWS


MACHINE = {"ImageId": "ami-1", "KeyName": "key", "VpcId": "vpc-1", "SubnetId": "subnet-1"}


@cache
def template(written: Path) -> Any:
    return yaml.safe_load((written / "aws" / "cloudformation.yaml").read_text())


def stack(written: Path, values: Mapping[str, str], **machine: str) -> cloudformation.Stack:
    return cloudformation.Stack(
        template(written), {**MACHINE, **machine, **{names.pascal(KEYS[k]): v for k, v in values.items()}}
    )


def by_cloudformation(written: Path, root: Path, values: Mapping[str, str]) -> Choice:
    user_data = base64.b64decode(stack(written, values).resource("Instance")["UserData"]).decode()
    assert len(user_data) < 16384
    return by_cloud_init(instance(root), user_data)


def test_every_parameter_of_cloudformation_arrives(written: Path, tmp_path: Path) -> None:
    assert by_cloudformation(written, tmp_path / "good", GOOD) == direct(GOOD)
    assert by_cloudformation(written, tmp_path / "none", {}) == Choice()


@pytest.mark.parametrize("key", KEYS)
def test_cloudformation_refuses_hostile_values_or_hands_them_over_exactly(
    written: Path, tmp_path: Path, key: str
) -> None:
    for number, value in enumerate(HOSTILE):
        try:
            found = by_cloudformation(written, tmp_path / str(number), {key: value})
        except cloudformation.RefusedError:
            _, problems = options.choose([Source("direct", {key: value.strip(" ")})], MANIFEST)
            assert problems or value != value.strip(), f"refused without need: {key}={value!r}"
        else:
            assert found == direct({key: value}), value


def test_cloudformation_opens_the_ports_that_the_choice_needs(written: Path) -> None:
    def opened(values: Mapping[str, str], **machine: str) -> dict[int, str]:
        found = stack(written, values, **machine)
        own = [found.resource(name) for name in found.of_type("AWS::EC2::SecurityGroupIngress")]
        rules = [*found.resource("SecurityGroup")["SecurityGroupIngress"], *own]
        return {rule["FromPort"]: rule["CidrIp"] for rule in rules}

    assert set(opened({})) == {22, 3000, 8000}
    assert set(opened({"sandbox": "public"})) == {22, 3000, 8000, 8080}
    assert set(opened({"domain": "ai.example.com"})) == {22, 3000, 8000, 80, 443}
    own = "203.0.113.0/24"
    rules = opened({"domain": "ai.example.com"}, AccessFrom=own)
    assert rules == {22: "0.0.0.0/0", 3000: own, 8000: own, 80: "0.0.0.0/0", 443: own}


def test_moto_deploys_the_stack(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's evaluation of the template, with another's idea of EC2."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    body = (written / "aws" / "cloudformation.yaml").read_text()
    with mock_aws():
        cloud, ec2 = (boto3.client(name, region_name="us-east-1") for name in ("cloudformation", "ec2"))
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
        given = {
            "ImageId": ec2.describe_images()["Images"][0]["ImageId"],
            "VpcId": vpc,
            "SubnetId": subnets[0]["SubnetId"],
            "KeyName": ec2.create_key_pair(KeyName="key")["KeyName"],
            **{names.pascal(KEYS[key]): value for key, value in GOOD.items()},
        }
        parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]
        cloud.create_stack(StackName="ai", TemplateBody=body, Parameters=parameters)
        made = cloud.describe_stacks(StackName="ai")["Stacks"][0]
        instances = [one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]]
        (machine,) = instances
        user_data = ec2.describe_instance_attribute(InstanceId=machine["InstanceId"], Attribute="userData")
        groups = ec2.describe_security_groups(Filters=[{"Name": "description", "Values": ["Ports of AI Sandbox"]}])
        templates = ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    outputs = {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}
    assert re.fullmatch(r"http://.*:3000", outputs["ChatUrl"])
    assert re.fullmatch(r"http://.*:8000/v1", outputs["ApiUrl"])
    text = base64.b64decode(user_data["UserData"]["Value"]).decode()
    assert by_cloud_init(instance(tmp_path), text) == direct(GOOD)
    opened = {rule["FromPort"] for rule in groups["SecurityGroups"][0]["IpPermissions"]}
    assert opened == {22, 3000, 8000, 8080, 80, 443}
    assert templates[0]["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"] == "required"


# Azure


def deployment(written: Path, values: Mapping[str, str]) -> tuple[arm.Deployment, dict[str, object]]:
    template = json.loads((written / "azure" / "mainTemplate.json").read_text())
    machine = {"imageId": "/subscriptions/x", "sshPublicKey": "ssh-ed25519 AAAA"}
    found = arm.Deployment(template, {**machine, **{names.camel(KEYS[key]): value for key, value in values.items()}})
    resources = {entry["type"].partition("/")[2]: entry["properties"] for entry in template["resources"]}
    return found, resources


def by_arm(written: Path, root: Path, values: Mapping[str, str]) -> Choice:
    found, resources = deployment(written, values)
    machine = found.evaluated(resources["virtualMachines"])
    return by_cloud_init(instance(root), base64.b64decode(machine["osProfile"]["customData"]).decode())


def test_every_parameter_of_azure_arrives(written: Path, tmp_path: Path) -> None:
    assert by_arm(written, tmp_path / "good", GOOD) == direct(GOOD)
    assert by_arm(written, tmp_path / "none", {}) == Choice()


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:30])
def test_hostile_parameters_of_azure_do_what_they_would_do_directly(written: Path, tmp_path: Path, value: str) -> None:
    free = {key: value for key, option in KEYS.items() if not option.choices}
    found = by_arm(written, tmp_path, free)
    if re.search(r"[^\x20-\x7e\n\r\t\x85\xa0-\ud7ff\ue000-\ufffd]", json.dumps(value, ensure_ascii=False)):
        assert found.closed >= {"api_key", "chat_password", "allowed_cidrs"}  # YAML takes no such letter
    else:
        assert found == direct(free)


def test_azure_refuses_what_is_not_on_a_list(written: Path, tmp_path: Path) -> None:
    with pytest.raises(arm.RefusedError, match="sandbox"):
        by_arm(written, tmp_path, {"sandbox": "loud"})


def test_azure_opens_the_ports_that_the_choice_needs(written: Path) -> None:
    def opened(values: Mapping[str, str]) -> set[str]:
        found, resources = deployment(written, values)
        rules = found.evaluated(resources["networkSecurityGroups"])["securityRules"]
        allowed = [rule["properties"] for rule in rules if rule["properties"]["access"] == "Allow"]
        return {rule["destinationPortRange"] for rule in allowed}

    assert opened({}) == {"22", "3000", "8000"}
    assert opened({"sandbox": "public"}) == {"22", "3000", "8000", "8080"}
    assert opened({"domain": "ai.example.com"}) == {"22", "3000", "8000", "80", "443"}


# Terraform


def terraform(module: Path, root: Path, values: Mapping[str, str], output: str) -> object:
    """What Terraform makes of a module's variables: its providers are left out, since a cloud would be needed."""
    root.mkdir()
    for name in ("variables.tf", "choice.tf"):
        text = (module / name).read_text()
        (root / name).write_text(text[text.index('variable "model"') :] if name == "variables.tf" else text)
    (root / "output.tf").write_text(f'output "it" {{\n  value     = {output}\n  sensitive = true\n}}\n')
    (root / "terraform.tfvars.json").write_text(json.dumps(values))
    environment = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    environment.pop("TF_CLI_CONFIG_FILE", None)
    command = ["terraform", "apply", "-auto-approve", "-input=false", "-no-color"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr)
    shown = subprocess.run(["terraform", "output", "-json"], cwd=root, env=environment, capture_output=True, check=True)
    return json.loads(shown.stdout)["it"]["value"]


needs_terraform = pytest.mark.skipif(not shutil.which("terraform"), reason="terraform is not installed")
METADATA = '{ for key, value in local.chosen : "aisandbox-${key}" => value }'


@needs_terraform
def test_every_variable_of_the_google_module_arrives(written: Path, tmp_path: Path) -> None:
    module = written / "gcp" / "module"
    assert f"metadata = {METADATA}\n" in (module / "main.tf").read_text()
    attributes = terraform(module, tmp_path / "module", GOOD, METADATA)
    assert isinstance(attributes, dict)
    assert attributes == {names.gcp(KEYS[key]): value for key, value in GOOD.items()}
    places = instance(tmp_path / "instance")
    places.cloud_run.mkdir(parents=True)
    (places.cloud_run / "cloud-id").write_text("gce\n")
    with metadata.serving(metadata.gcp(attributes)) as double:
        assert decided(dataclasses.replace(places, metadata=double.address)) == direct(GOOD)


@needs_terraform
@pytest.mark.parametrize("target", ["digitalocean", "hetzner", "openstack"])
def test_every_variable_of_the_terraform_examples_arrives(written: Path, tmp_path: Path, target: str) -> None:
    user_data = terraform(written / target / "terraform", tmp_path / "module", GOOD, "local.user_data")
    assert by_cloud_init(instance(tmp_path / "instance"), str(user_data)) == direct(GOOD)


@needs_terraform
def test_terraform_refuses_what_does_not_fit_in_the_options_words(written: Path, tmp_path: Path) -> None:
    bad = dict.fromkeys(KEYS, 'a"\n${b}')
    with pytest.raises(ValueError, match="This does not fit") as caught:
        terraform(written / "gcp" / "module", tmp_path / "bad", bad, METADATA)
    said = " ".join(re.sub(r"[│╷╵]", " ", str(caught.value)).split())
    for option in KEYS.values():
        told = f"Give one of {', '.join(option.choices)}." if option.choices else f"This does not fit: {option.label}."
        assert told in said


# User-data


@pytest.mark.parametrize("target", ["digitalocean", "raw"])
def test_the_user_data_template_chooses_nothing_until_somebody_does(written: Path, tmp_path: Path, target: str) -> None:
    text = (written / target / "user-data.yaml").read_text()
    assert by_cloud_init(instance(tmp_path / "none"), text) == Choice()
    keys = "|".join(KEYS)
    filled = re.sub(rf"^  # (({keys}): )", r"  \1", text, flags=re.MULTILINE)
    places = instance(tmp_path / "filled")
    choice = by_cloud_init(places, filled)
    assert options.read(places, MANIFEST)[1] == ()
    assert all(getattr(choice, key) is not None for key in KEYS)


# Containers


def by_environment(root: Path, variables: Mapping[str, str]) -> Choice:
    """The choice of a container that was started with these variables."""
    places = instance(root)
    programs = places.opt / PROGRAMS.parent.name / PROGRAMS.name
    programs.parent.mkdir()
    programs.write_text("{}")
    places.environment.parent.mkdir(parents=True)
    places.environment.write_text(json.dumps(given_variables.taken(variables)))
    choice, problems = options.read(places, MANIFEST)
    assert problems == ()
    return choice


def test_every_variable_of_the_hub_and_of_compose_arrives(written: Path, tmp_path: Path) -> None:
    given = {key: value for key, value in GOOD.items() if key not in container.UNAVAILABLE}
    hub = json.loads((written / "container" / ".runpod" / "hub.json").read_text())["config"]
    assert {entry["key"] for entry in hub["env"]} == {names.environment(KEYS[key]) for key in given}
    for field in hub["presets"]:
        assert by_environment(tmp_path / field["name"], field["defaults"]).model == field["name"]
    empty = {entry["key"]: entry["input"]["default"] for entry in hub["env"]}
    assert by_environment(tmp_path / "empty", empty) == Choice()
    assert by_environment(tmp_path / "hub", {names.environment(KEYS[k]): v for k, v in given.items()}) == direct(given)

    text = (written / "container" / "compose.yaml").read_text()
    filled = re.sub(r"^      # (AISANDBOX_\w+: )", r"      \1", text, flags=re.MULTILINE)
    for content, count in ((text, 0), (filled, len(given))):
        variables = yaml.safe_load(content)["services"][MANIFEST.product.id]["environment"]
        ours = {name: str(value) for name, value in variables.items() if name.startswith(given_variables.PREFIX)}
        assert len(ours) == count
        choice = by_environment(tmp_path / f"compose{count}", ours)
        assert sum(getattr(choice, key) is not None for key in given) == max(count, 1)  # the sandbox has a default


# Command lines


@pytest.mark.parametrize(
    ("target", "program", "needed"),
    [
        ("digitalocean", "doctl", {"IMAGE_ID": "1", "SSH_KEY": "aa:bb"}),
        ("hetzner", "hcloud", {"IMAGE_ID": "1", "SSH_KEY": "me", "SIZE": "big"}),
        ("openstack", "openstack", {"IMAGE": "i.qcow2", "FLAVOR": "gpu", "SSH_KEY": "me", "NETWORK": "net"}),
    ],
)
def test_command_lines_pass_the_users_file_and_name_what_is_missing(
    written: Path, tmp_path: Path, target: str, program: str, needed: dict[str, str]
) -> None:
    tool = tmp_path / program
    tool.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >>{tmp_path}/called; echo >>{tmp_path}/called\n')
    tool.chmod(0o755)
    script = written / target / "deploy.sh"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    def run(given: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(script), *arguments], env={**environment, **given}, capture_output=True, text=True
        )

    for name in needed:
        done = run({key: value for key, value in needed.items() if key != name})
        assert done.returncode != 0
        assert name in done.stderr
    done = run(needed, "my $(file).yaml")
    assert done.returncode == 0, done.stderr
    last = (tmp_path / "called").read_text().splitlines()[-1]
    assert "|my $(file).yaml|" in last
    assert f"|{needed['SSH_KEY']}|" in last
