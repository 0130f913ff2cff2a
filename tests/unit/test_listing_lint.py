"""What the linter of listings refuses: faults planted in the manifest, and in the files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aisandbox import manifest as manifests
from aisandbox.builder import listing
from aisandbox.builder.errors import BuildError
from aisandbox.builder.listing import formats
from aisandbox.manifest import REPOSITORY, Manifest

SOURCE = REPOSITORY / "marketplace.yaml"
MANIFEST = manifests.load(SOURCE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All listings, as they come."""
    folder = tmp_path_factory.mktemp("listing")
    listing.write(MANIFEST, folder, MANIFEST.targets)
    return folder


def planted(tmp_path: Path, place: tuple[str | int, ...], value: object) -> tuple[Path, Manifest]:
    """The manifest with another value at one place."""
    content = yaml.safe_load(SOURCE.read_text())
    part: Any = content
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    file = tmp_path / "marketplace.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6))
    return file, manifests.load(file)


@pytest.mark.parametrize(
    ("place", "value", "target", "told"),
    [
        (
            ("product", "tagline"),
            "x" * 130,
            "digitalocean",
            r"digitalocean/short.txt: text: 1 to 120 characters on one line",
        ),
        (("product", "tagline"), "A private AI \N{EM DASH} yours.", "aws", r"aws/short.txt: text: only ASCII.*U\+2014"),
        (
            ("product", "tagline"),
            "x" * 101,
            "azure",
            r"azure/summary.txt: text: 1 to 100 characters are allowed, it has 101",
        ),
        (
            ("listing", "description"),
            "Too short.",
            "linode",
            r"linode/description.txt: text: 100 to 125 words are allowed, it has 2",
        ),
        (
            ("listing", "description"),
            "x" * 400 + ".",
            "aws",
            r"aws/description.txt: text: 1 to 350 characters are allowed, it has 0",
        ),
        (("options", 3, "label"), "x" * 250, "linode", r"linode/stackscript.sh: /\*/label: 1 to 255 characters"),
        (("options", 3, "help"), 'Say "yes".', "linode", r"linode/stackscript.sh: /\*/label: "),
        (
            ("options", 0, "key"),
            "model2",
            "vultr",
            r"vultr/variables.json: /\*/name: 1 to 15 small letters and _ are allowed, it is 'model2'",
        ),
        (("options", 3, "help"), "\N{EM DASH}", "aws", r"aws/cloudformation.yaml: text: only ASCII"),
        (("release", "notes"), {"0.1.0": ["\N{EM DASH}"]}, "aws", r"aws/changeset.json: text: only ASCII"),
        (
            ("release", "notes"),
            {"0.0.9": ["Nothing."]},
            "aws",
            r"aws/changeset.json: .*ReleaseNotes: 1 to 30000 characters",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_fault_in_the_manifest_is_named_with_its_line_and_the_rule(
    quick: None, tmp_path: Path, place: tuple[str | int, ...], value: object, target: str, told: str
) -> None:
    source, changed = planted(tmp_path, place, value)
    out = tmp_path / "out"
    if place == ("options", 0, "key"):  # its name is in no template, but the document about it is
        changed = changed.model_copy(
            update={"options": (changed.options[0], MANIFEST.options[0], *changed.options[1:])}
        )
    listing.write(changed, out, [target])
    with pytest.raises(BuildError, match=told) as caught:
        listing.require_clean(listing.lint(out, [target]), source)
    if "text: only ASCII" not in told or "short" in told:
        found = place[:2] if "stackscript.sh" in told else place  # label and help are one text there
        line = manifests.line_of(source.read_text(), found)
        assert f"marketplace.yaml, line {line} ({'.'.join(map(str, found))})" in str(caught.value)


def test_a_key_that_is_too_long_for_vultr_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(manifests.ManifestError, match=r"line \d+: options\.1\.key: .*pattern"):
        planted(tmp_path, ("options", 1, "key"), "max_model_length")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tool that takes seconds, for faults that are found without it."""
    monkeypatch.setattr(formats, "CFN_LINT", Path("/nonexistent"))


def spoil(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("linode/stackscript.sh", 'fail "run this as root"', "fail $why", "shellcheck: .*SC2154"),
        ("linode/stackscript.sh", "field() {", "field( {", "syntax error"),
        ("linode/stackscript.sh", 'name="revision"', 'name="model"', "two fields are named model"),
        ("linode/stackscript.sh", 'default="local"', 'default="loud"', "default of field sandbox is none of"),
        ("linode/stackscript.sh", ' default="" example="main"', "", "field revision has no default"),
        ("linode/stackscript.json", '"label"', '"description"', "a key is there twice"),
        ("linode/stackscript.json", '"label": "AI Sandbox"', '"label": "AI"', "/label: 3 to 128 characters"),
        ("linode/short.txt", "\n", " \n", "line 1 ends in blanks"),
        ("linode/long.md", "\n", "\x07\n", "control character"),
        ("linode/user-data.yaml", "#cloud-config", "# cloud-config", "first line is not #cloud-config"),
        ("linode/user-data.yaml", "aisandbox:", "aisandbox: [", "not YAML"),
        ("vultr/imageless.txt", "#!vultr-vendor-part", "#!vendor-part", "separator #!vultr-vendor-part is missing"),
        ("vultr/variables.json", '"model"', '"Model_Name"', "1 to 15 small letters"),
        ("digitalocean/patch.json", '"version"', '"versions"', "/version is missing"),
        ("digitalocean/patch.json", "https://vllm.ai", "vllm.ai", "addresses with https"),
        ("aws/cloudformation.yaml", "Ref: KeyName", "Ref: Key", "Key is referred to, and not there"),
        ("aws/cloudformation.yaml", "${Revision}", "main", "parameter Revision is not used"),
        (
            "azure/mainTemplate.json",
            "[variables('customData')]",
            "[variables('custom')]",
            r"variables\('custom'\) is not declared",
        ),
        ("azure/mainTemplate.json", '"apiVersion": "2024-05-01",', "", "a resource has no apiVersion"),
        (
            "azure/createUiDefinition.json",
            "[steps('choice').model]",
            "[steps('choice').mode]",
            "model is taken from choice.mode",
        ),
        ("gcp/module/main.tf", "var.machine_type", "var.machine", r"var.machine is not declared"),
        ("gcp/module/main.tf", "local.chosen", "local.chose", r"local.chose is not declared"),
        ("gcp/module/main.tf", "machine_type = var.machine_type\n", "machine_type = \n", "not Terraform's language"),
        (
            "gcp/module/outputs.tf",
            "google_compute_instance.instance.name",
            "google_compute_instance.other.name",
            "other is not declared",
        ),
        ("gcp/module/versions.tf", "    google = {", "    aws = {", "provider google is not required"),
        ("gcp/module/metadata.yaml", "- name: zone", "- name: zones", "zone is missing, or no variable"),
        ("container/.runpod/hub.json", "AISANDBOX_REVISION", "aisandbox-revision", "capital letters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_fault_in_a_file_is_found(
    quick: None, written: Path, tmp_path: Path, file: str, old: str, new: str, told: str
) -> None:
    target = file.partition("/")[0]
    if target not in MANIFEST.targets:
        pytest.skip(f"no target {target} yet")
    shutil.copytree(written / target, tmp_path / target)
    spoil(tmp_path, file, old, new)
    with pytest.raises(BuildError, match=told):
        listing.require_clean(listing.lint(tmp_path, [target]), SOURCE)


def test_cfn_lint_is_asked(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "aws", tmp_path / "aws")
    spoil(tmp_path, "aws/cloudformation.yaml", "HttpTokens: required", "HttpTokens: sometimes")
    found = formats.faults(
        tmp_path / "aws" / "cloudformation.yaml",
        "cloudformation.yaml",
        (tmp_path / "aws" / "cloudformation.yaml").read_text(),
    )
    assert any("cfn-lint" in fault and "sometimes" in fault for fault in found)


def test_the_command_refuses_a_manifest_that_breaks_a_rule(tmp_path: Path) -> None:
    source, _ = planted(tmp_path, ("product", "tagline"), "x" * 130)
    command = [sys.executable, "-m", "aisandbox.builder", "listing", "--target", "raw", "--manifest", str(source)]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "(product.tagline): raw/short.txt" in " ".join(done.stderr.split())
