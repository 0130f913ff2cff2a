"""The listings that `make listing` writes, and that those in the repository are current."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aisandbox import manifest as manifests
from aisandbox.builder import listing
from aisandbox.builder.errors import BuildError
from aisandbox.builder.listing import formats, names, ports, software, tables, texts
from aisandbox.builder.listing.examples import example
from aisandbox.builder.listing.files import choices, mismatch, optional, portable
from aisandbox.builder.listing.limits import LIMITS
from aisandbox.instance.choose import options as instance_options
from aisandbox.manifest import REPOSITORY

SOURCE = REPOSITORY / "marketplace.yaml"
MANIFEST = manifests.load(SOURCE)
TARGETS = tuple(MANIFEST.targets)
GOLDEN = REPOSITORY / "tests" / "data" / "listing"
RENEW = "python -m aisandbox.builder listing --out tests/data/listing"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All listings, as they come."""
    folder = tmp_path_factory.mktemp("listing")
    listing.write(MANIFEST, folder, TARGETS)
    return folder


def contents(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


# What is written


def test_the_listings_in_the_repository_are_current(written: Path) -> None:
    made, kept = contents(written), contents(GOLDEN)
    assert sorted(made) == sorted(kept), f"renew them: {RENEW}"
    changed = [name for name, text in made.items() if text != kept[name]]
    assert changed == [], f"renew them: {RENEW}"


def test_every_listing_keeps_every_rule_by_every_tool(written: Path) -> None:
    report = listing.lint(written, TARGETS)
    assert [finding.told(SOURCE) for finding in report.findings] == []
    assert report.files == len(contents(written)) > 80
    assert set(report.skipped) <= {"the layout of Terraform files (terraform)"}  # Debian has none


def test_the_same_manifest_gives_the_same_bytes_elsewhere_and_at_another_time(written: Path, tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from aisandbox import manifest; from aisandbox.builder import listing\n"
        "time.time = lambda: 4e9\n"
        f"found = manifest.load(); listing.write(found, Path({str(tmp_path)!r}), found.targets)\n"
    )
    environment = {**os.environ, "LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, check=True)
    assert contents(tmp_path) == contents(written)


def test_what_is_no_part_of_a_listing_any_more_goes(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "old.txt").write_text("old")
    (tmp_path / "other").write_text("not ours")
    paths = listing.write(MANIFEST, tmp_path, ["raw"])
    assert not (tmp_path / "raw" / "old.txt").exists()
    assert (tmp_path / "other").exists()
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "raw").iterdir()}


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_its_texts_and_an_index_of_all_files(target: str) -> None:
    files = listing.files(MANIFEST, target)
    assert {"short.txt", "long.md", "ports.md", "release-notes.md", "README.md"} <= files.keys()
    for name in files.keys() - {"README.md"}:
        assert f"| `{name}` |" in files["README.md"]
    assert MANIFEST.product.version in files["release-notes.md"]
    for door in ports.doors(MANIFEST, target):
        assert f"| {door.port} | {door.name} |" in files["ports.md"]
    for plan in MANIFEST.targets[target].plans:
        assert f"| `{plan.name}` |" in files["README.md"]


def test_the_tools_of_the_lint_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(formats, "CFN_LINT", Path("/nonexistent"))
    assert len(formats.missing_tools()) == 4


# Every option, in every form


FORMS: dict[str, tuple[str, names.Name, Callable[[str], Any]]] = {
    "linode": ("stackscript.sh", names.stackscript, lambda text: [f["name"] for f in formats.udf_fields(text)]),
    "vultr": ("variables.json", names.plain, lambda text: [variable["name"] for variable in json.loads(text)]),
    "aws": ("cloudformation.yaml", names.pascal, lambda text: yaml.safe_load(text)["Parameters"]),
    "azure": ("mainTemplate.json", names.camel, lambda text: json.loads(text)["parameters"]),
    "gcp": (
        "module/metadata.yaml",
        names.plain,
        lambda text: [variable["name"] for variable in yaml.safe_load(text)["spec"]["interfaces"]["variables"]],
    ),
    "container": (
        ".runpod/hub.json",
        names.environment,
        lambda text: [entry["key"] for entry in json.loads(text)["config"]["env"]],
    ),
}


@pytest.mark.parametrize("target", FORMS)
def test_every_option_is_in_the_form(written: Path, target: str) -> None:
    file, name, fields = FORMS[target]
    offered = ports.options(MANIFEST, target)
    assert len(offered) == len(MANIFEST.options) or target == "container"
    assert {name(option) for option in offered} <= set(fields((written / target / file).read_text()))


@pytest.mark.parametrize("folder", ["gcp/module", "digitalocean/terraform", "hetzner/terraform", "openstack/terraform"])
def test_terraform_keeps_secrets_out_of_sight(written: Path, folder: str) -> None:
    text = (written / folder / "variables.tf").read_text()
    for option in MANIFEST.options:
        block = text.split(f'variable "{option.key}" {{')[1].split("\n}\n")[0]
        assert ("sensitive   = true" in block) == (option.type == "secret")


def test_no_form_shows_a_secret(written: Path) -> None:
    parameters = yaml.safe_load((written / "aws" / "cloudformation.yaml").read_text())["Parameters"]
    arm = json.loads((written / "azure" / "mainTemplate.json").read_text())["parameters"]
    elements = json.loads((written / "azure" / "createUiDefinition.json").read_text())["parameters"]["steps"][1][
        "elements"
    ]
    boxes = {element["name"]: element["type"] for element in elements}
    for option in MANIFEST.options:
        secret = option.type == "secret"
        assert parameters[names.pascal(option)].get("NoEcho", False) == secret
        assert (arm[names.camel(option)]["type"] == "securestring") == secret
        assert (boxes[names.camel(option)] == "Microsoft.Common.PasswordBox") == secret
        assert not secret or "password" in names.stackscript(option)


def test_nothing_is_required(written: Path) -> None:
    parameters = yaml.safe_load((written / "aws" / "cloudformation.yaml").read_text())["Parameters"]
    arm = json.loads((written / "azure" / "mainTemplate.json").read_text())["parameters"]
    variables = json.loads((written / "vultr" / "variables.json").read_text())
    assert all("Default" in parameters[names.pascal(option)] for option in MANIFEST.options)
    assert all("defaultValue" in arm[names.camel(option)] for option in MANIFEST.options)
    assert not any(variable["required"] for variable in variables)


def test_examples_obey_the_rules_of_their_options_and_of_the_forms() -> None:
    for option in MANIFEST.options:
        value = str(yaml.safe_load(example(option)))
        assert instance_options.check(option, value) is not None
        if option.choices:
            assert value in choices(option)
        else:
            for pattern in (optional(option), portable(optional(option))):
                assert re.search(pattern, value)
                assert re.search(pattern, "")
        assert option.label in mismatch(option)


# The pieces


def test_a_text_is_fitted_by_whole_sentences() -> None:
    text = "One is short. Two is a little longer! Is three? Yes."
    assert texts.fitted(text, 1000) == text
    assert texts.fitted(text, 47) == "One is short. Two is a little longer! Is three?"
    assert texts.fitted(text, 46) == "One is short. Two is a little longer!"
    assert texts.fitted(text, 5) == ""


def test_versions_are_those_of_the_locks() -> None:
    found = {part.name: part for part in software.software(MANIFEST)}
    assert found["AI Sandbox"].version == MANIFEST.product.version
    lock = (REPOSITORY / "locks" / "vllm-cuda.txt").read_text()
    assert f"\nvllm=={found['vLLM'].version} " in lock
    assert found["vLLM"].release_notes.endswith(f"/v{found['vLLM'].version}")
    package = json.loads((REPOSITORY / "locks" / "code-server" / "package.json").read_text())
    assert found["code-server"].version == package["dependencies"]["code-server"]


def test_a_lock_that_pins_no_such_part_is_named() -> None:
    for lock in ("open-webui.txt", "code-server/package-lock.json"):
        with pytest.raises(BuildError, match=f"locks/{lock} pins no vllm-of-mars"):
            software._version(lock, "vllm-of-mars")


def test_ports_open_on_the_platform_as_on_the_instance() -> None:
    """What opens which port stands in the firewall's template; the tables and rules here must say the same."""
    from aisandbox.instance.run.rendering import fill

    template = (REPOSITORY / "templates" / "nftables" / "access.conf.j2").read_text()

    def opened(**access: object) -> set[int]:
        text = fill(template, {"manifest": MANIFEST, "deployment": {"access": access}})
        return {int(port) for rule in re.findall(r"dport \{?([\d, ]+)\}? accept", text) for port in rule.split(",")}

    usual = {door.port for door in ports.doors(MANIFEST) if door.public and door.name != "ssh"}
    assert opened() == usual
    for door in ports.doors(MANIFEST):
        if door.option:
            assert door.port in opened(**{door.option: door.value or "ai.example.com"}) - usual
    assert not {port.port for name, port in MANIFEST.ports.items() if "upstream" in name or name == "cdp"} & {
        door.port for door in ports.doors(MANIFEST)
    }


def test_a_plans_table_says_which_model_comes_with_it() -> None:
    for target, facts in MANIFEST.targets.items():
        table = tables.plans(MANIFEST, target)
        assert table.count("\n") == len(facts.plans) + 2
        for plan in facts.plans:
            assert f"`{MANIFEST.fitting(plan.gpu_memory_gib, plan.gpus)[0].id}`" in table
    with pytest.raises(BuildError, match="there is no target 'mars'"):
        tables.plans(MANIFEST, "mars")


def test_every_limit_has_a_source_and_is_for_a_file_that_is_written(written: Path) -> None:
    for limit in LIMITS:
        assert limit.source
        assert limit.target == "*" or (written / limit.target / limit.file).exists(), limit


def test_a_target_without_a_plan_to_propose_is_refused() -> None:
    bare = {**MANIFEST.targets, "aws": MANIFEST.targets["aws"].model_copy(update={"plans": ()})}
    with pytest.raises(BuildError, match="target aws has no plan to propose") as caught:
        listing.files(MANIFEST.model_copy(update={"targets": bare}), "aws")
    assert "targets.aws.plans" in caught.value.fix


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(BuildError, match="there is no target 'mars'") as caught:
        listing.files(MANIFEST, "mars")
    assert "make listing TARGET=" in caught.value.fix


# The command


def test_the_command_writes_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aisandbox.builder", "listing", "--target", "raw", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/raw/README.md\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Checked 6 files: all rules are kept.")
