"""The targets of marketplace.yaml and their Packer templates; Packer itself reads them in tests/marketplace."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import hcl2
import pytest

from aisandbox import manifest
from aisandbox.builder import packer_client
from aisandbox.builder.errors import BuildError
from aisandbox.builder.host import HostSettings
from aisandbox.builder.progress import Phases
from aisandbox.builder.targets import bake, baking, catalogue, images, template, validation
from aisandbox.builder.targets.builders import OPTIONS
from aisandbox.manifest import Target

TARGETS = manifest.load().targets
CLOUDS = catalogue.clouds()
SHARED = {"vars_file", "playbook", "ansible_tags", "image_name", "ssh_private_key_file", "user_data", "record"}


def parsed(target: str) -> dict[str, Any]:
    """The template as another reader of HCL than Packer understands it."""
    return hcl2.loads(template.text(target))


def names(blocks: list[dict[str, Any]]) -> set[str]:
    return {name.strip('"') for block in blocks for name in block}


def test_there_are_the_twelve_targets() -> None:
    expected = "digitalocean linode vultr aws gcp azure hetzner openstack qemu raw qcow2 container"
    assert set(TARGETS) == set(expected.split())


def test_every_cloud_has_a_source_and_every_source_a_cloud() -> None:
    validation.check_sources()
    assert set(CLOUDS) == {path.name.split(".")[0] for path in (template.PACKER / "sources").iterdir()}


@pytest.mark.parametrize("target", CLOUDS)
def test_the_template_is_one_source_and_the_shared_build(target: str) -> None:
    hcl = parsed(target)
    (source,) = hcl["source"]
    assert names([source]) == {CLOUDS[target].builder}
    assert names(list(source.values())) == {"image"}
    assert hcl["build"][0]["sources"] == [f'"source.{CLOUDS[target].builder}.image"']
    assert names(hcl["variable"]) >= SHARED | validation.COMMON
    assert names(hcl["variable"]) == template.declared(template.text(target))


@pytest.mark.parametrize("target", CLOUDS)
def test_settings_are_variables_of_the_template(target: str) -> None:
    assert set(CLOUDS[target].settings) <= names(parsed(target)["variable"])


@pytest.mark.parametrize("target", [name for name in CLOUDS if name != "qemu"])
def test_credentials_are_told_and_never_variables_with_a_value(target: str) -> None:
    entry = CLOUDS[target]
    assert entry.credentials
    assert entry.credentials_url
    for block in parsed(target)["variable"]:
        for name, variable in block.items():
            if re.search("token|secret|key$", name.strip('"')) and "ssh" not in name:
                assert variable["default"].startswith("${env("), name
                assert variable["sensitive"] is True, name


@pytest.mark.parametrize("target", CLOUDS)
def test_environment_variables_that_a_source_reads_are_among_its_credentials(target: str) -> None:
    read = set(re.findall(r'env\("(\w+)"\)', template.source(target).read_text()))
    # Not wanted everywhere.
    assert read - {"OS_REGION_NAME"} <= set(CLOUDS[target].credentials)


@pytest.mark.parametrize("target", CLOUDS)
def test_the_bakes_own_key_opens_the_machine(target: str) -> None:
    (source,) = (block for labels in parsed(target)["source"] for kinds in labels.values() for block in kinds.values())
    assert source["ssh_private_key_file"] == "${var.ssh_private_key_file}"
    assert source["ssh_username"] == "${var.ssh_username}"


def test_the_plugins_of_newer_packers_are_listed() -> None:
    listed = hcl2.loads((template.PACKER / "plugins" / "plugins.pkr.hcl").read_text())
    (required,) = listed["packer"][0]["required_plugins"]
    # A plugin is named by its vendor, a builder by plugin and kind: amazon-ebs, azure-arm.
    kinds = {str(target.builder).split("-")[0] for target in CLOUDS.values()}
    assert set(required) - {"__is_block__"} == kinds | {"ansible"}


def test_builders_that_are_checked_by_their_options_are_those_that_packer_1_6_lacks() -> None:
    assert set(OPTIONS) == {name for name, target in CLOUDS.items() if not catalogue.supported(target, (1, 6, 6))}


@pytest.mark.parametrize(
    ("version", "known"), [((1, 6, 6), False), ((1, 7, 0), True), ((1, 16, 0), True), ((2, 0, 0), True)]
)
def test_linode_needs_a_newer_packer(version: tuple[int, ...], known: bool) -> None:
    assert catalogue.supported(CLOUDS["linode"], version) is known


@pytest.mark.parametrize("name", TARGETS)
def test_plans_are_of_some_use_and_prices_have_a_source(name: str) -> None:
    target = TARGETS[name]
    for plan in target.plans:
        assert plan.gpu_memory_gib >= 16
        assert (plan.usd_per_hour is None) == (plan.source is None), plan.name
        assert plan.source is None or re.search(r"20\d\d$", plan.source), plan.name


def test_an_unknown_target_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(BuildError, match="no target 'digitalozean'") as caught, Phases() as phases:
        images.make("digitalozean", "cpu", "", phases)
    assert all(name in caught.value.fix for name in TARGETS)


@pytest.mark.parametrize("target", [name for name in CLOUDS if name != "qemu"])
def test_missing_credentials_are_named_all_at_once_before_anything_starts(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packer_client, "version", lambda: pytest.fail("Packer was asked"))
    first, *missing = CLOUDS[target].credentials
    environment = dict.fromkeys(missing, "") if missing else {}
    with pytest.raises(BuildError) as caught, Phases() as phases:
        bake(target, "cpu", phases, environment=environment | ({first: "given"} if missing else {}))
    assert all(name in str(caught.value) for name in missing or [first])
    assert not missing or first not in str(caught.value)
    assert str(CLOUDS[target].credentials_url) in caught.value.fix


def test_an_old_packer_is_told_before_anything_starts() -> None:
    if catalogue.supported(CLOUDS["vultr"], packer_client.version()):
        pytest.skip("this Packer has the builder")
    with pytest.raises(BuildError, match=r"Vultr needs Packer 1\.7 or later") as caught, Phases() as phases:
        bake("vultr", "cpu", phases, environment={"VULTR_API_KEY": "x"})
    assert "developer.hashicorp.com/packer/install" in caught.value.fix


def test_a_source_image_is_for_those_that_start_from_one() -> None:
    with pytest.raises(BuildError, match="start from one"), Phases() as phases:
        images.make("raw", "cpu", "debian", phases)


def test_what_is_passed_are_variables_of_the_template_and_files_of_the_bake(tmp_path: Path) -> None:
    given = baking.prepare("digitalocean", "cuda", tmp_path, extra={"region": "fra1"})
    assert given["region"] == "fra1"
    assert set(given) | {"ansible_tags", "record"} <= template.declared(template.text("digitalocean"))
    assert re.fullmatch(r"aisandbox-[\da-z]+(-\d+)*-cuda-\d{14}", given["image_name"])
    facts = json.loads(Path(given["vars_file"]).read_text())
    assert (facts["flavour"], facts["image_bake"], facts["platform_name"]) == ("cuda", True, "digitalocean")
    public_key = Path(f"{given['ssh_private_key_file']}.pub").read_text().strip()
    assert public_key in given["user_data"]
    assert given["user_data"].startswith("#cloud-config\n")


def test_an_unknown_variable_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no variable regoin") as caught:
        baking.prepare("aws", "cpu", tmp_path, extra={"regoin": "x"})
    assert "region" in caught.value.fix


def test_a_platform_hears_nothing_of_this_hosts_package_sources(tmp_path: Path) -> None:
    given = baking.prepare("aws", "cpu", tmp_path)
    facts = json.loads(Path(given["vars_file"]).read_text())
    assert not any("INDEX" in name for name in facts["bake_uv_environment"])
    assert facts["bake_environment"] == {}


def test_a_virtual_machine_of_this_host_hears_of_those_that_it_can_reach() -> None:
    settings = HostSettings("https://pypi.example/simple", ("file:///opt/pypi",), ("/opt/wheels",), "/etc/ca", {})
    reachable = baking.without_local_files(settings)
    assert reachable == HostSettings("https://pypi.example/simple", (), (), None, {})


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of templates, to be changed by a test."""
    folder = tmp_path / "packer"
    shutil.copytree(template.PACKER, folder)
    monkeypatch.setattr(template, "PACKER", folder)
    return folder


@pytest.mark.parametrize(
    ("target", "old", "new", "words"),
    [
        ("aws", "var.size", "var.seize", "uses variable seize, which it does not declare"),
        ("aws", "= var.disk_gib", "= 20", "declares variable disk_gib, which it does not use"),
        ("hetzner", 'variable "region"', 'variable "zone"', "has no variable region"),
        ("hetzner", '"hcloud" "image"', '"hcloud" "bild"', 'has no block source "hcloud" "image"'),
        ("gcp", "  zone  ", "  zone", "zone"),
        ("azure", "}\n", "\n", "azure.pkr.hcl"),
        ("linode", "instance_tags  ", "instance_tasg  ", "unknown option instance_tasg"),
        ("vultr", "  os_id                = var.source_image\n", "", "source_image"),
        (
            "digitalocean",
            "  size                 = var.size\n",
            '  size                 = "${var.size}"\n  mystery = 1\n',
            "mystery",
        ),
    ],
)
def test_a_fault_in_a_source_is_told(sources: Path, target: str, old: str, new: str, words: str) -> None:
    path = sources / "sources" / f"{target}.pkr.hcl"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BuildError) as caught:
        validation.validate(target)
    assert words in str(caught.value)


def test_a_required_option_that_is_missing_is_told(sources: Path) -> None:
    hcl = re.sub(r"  os_id\s+= [^\n]*\n", "", template.text("vultr"))
    with pytest.raises(BuildError, match="missing option os_id"):
        validation.check_options("vultr", hcl)


def test_a_source_without_a_target_is_told(sources: Path) -> None:
    (sources / "sources" / "oracle.pkr.hcl").write_text("")
    with pytest.raises(BuildError, match="differ: oracle"):
        validation.check_sources()


def test_a_target_without_template_is_not_rendered(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not baked by Packer"):
        template.render("raw", tmp_path)


def test_a_target_is_what_the_manifest_says() -> None:
    assert isinstance(catalogue.find("qemu"), Target)
