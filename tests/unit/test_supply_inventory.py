"""The inventory of root file systems: what it finds, and what cannot fool it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aisandbox.builder.supply import collect, licences
from aisandbox.builder.supply.debian import copyright_of
from aisandbox.builder.supply.distributions import locked
from aisandbox.builder.supply.inventory import Inventory, Kind, Package
from aisandbox.builder.supply.licences import NOASSERTION
from tests.support.rootfs import ENVS, Rootfs, sound


def found(rootfs: Rootfs, kind: Kind, name: str) -> Package:
    (package,) = [p for p in collect.of_root(rootfs.root).of(kind) if p.name == name]
    return package


def test_every_kind_of_package_is_listed_once_with_all_its_places(tmp_path: Path) -> None:
    inventory = collect.of_root(sound(tmp_path).root, "c0ffee")
    assert [package.purl for package in inventory.packages] == [
        "pkg:deb/debian/libthing1@1:2.0-3%2Bb1?arch=amd64&distro=debian-12",
        "pkg:deb/debian/old@1.0?arch=amd64&distro=debian-12",
        "pkg:generic/HuggingFaceTB-SmolLM2-135M-Instruct@0.1.2",
        "pkg:generic/aisandbox-guide@f00d",
        "pkg:npm/%40at/right@2.0.0",
        "pkg:npm/left@0.9.0",
        "pkg:npm/left@1.0.0",
        "pkg:generic/aisandbox@0.1.0?vcs_ref=c0ffee",
        "pkg:pypi/open-webui@0.12.4",
        "pkg:pypi/some-thing@1.2%2Bcpu",
    ]
    assert inventory.problems == ()
    assert inventory.mirrors == ("http://deb.debian.org/debian bookworm",)
    shared = next(package for package in inventory.packages if package.name == "some-thing")
    assert shared.places == ("open-webui", "vllm") and shared.artifact.startswith("sha256:")


def test_it_travels_as_json(tmp_path: Path) -> None:
    inventory = collect.of_root(sound(tmp_path).root)
    assert Inventory.from_json(json.loads(json.dumps(inventory.to_json()))) == inventory


def test_the_same_files_give_the_same_inventory(tmp_path: Path) -> None:
    first, second = (collect.of_root(sound(tmp_path / name).root) for name in ("a", "b"))
    assert first == second


def test_a_model_is_known_by_its_weights(tmp_path: Path) -> None:
    rootfs = sound(tmp_path)
    before = found(rootfs, Kind.model, "aisandbox/guide")
    assert before.licence == "Apache-2.0"
    rootfs.file("opt/aisandbox/models/models--aisandbox--guide/blobs/1", "others")
    assert found(rootfs, Kind.model, "aisandbox/guide").content != before.content


def test_byte_code_does_not_count_as_content(tmp_path: Path) -> None:
    rootfs = sound(tmp_path)
    before = collect.of_root(rootfs.root)
    rootfs.file("opt/aisandbox/lib/aisandbox/__pycache__/__init__.cpython-311.pyc", "made at installation")
    assert collect.of_root(rootfs.root) == before


@pytest.mark.parametrize(
    ("statement", "expression"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("Expat", "MIT"),
        ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0-Perl"),
        ("LGPL-3+ or GPL-2+, and Expat", "(LGPL-3.0-or-later OR GPL-2.0-or-later) AND MIT"),
        ("GPL-2+ with Autoconf exception", "GPL-2.0-or-later WITH Autoconf-exception-2.0"),
        ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
        ("GPL-2+ with Unheard-of exception", "LicenseRef-Debian-src-GPL-2-or-later-with-Unheard-of-exception"),
        ("public-domain", "LicenseRef-Public-Domain"),
        ("custom", "LicenseRef-Debian-src-custom"),
        ("ISC and/or LGPL-2.1+", "ISC OR LGPL-2.1-or-later"),
    ],
)
def test_debians_licences_become_expressions(statement: str, expression: str) -> None:
    assert licences.debian(statement, "src") == expression


def test_a_machine_readable_copyright_file_is_read(tmp_path: Path) -> None:
    package = found(sound(tmp_path), Kind.debian, "libthing1")
    assert package.licence == "((GPL-2.0-or-later OR Artistic-1.0-Perl) AND MIT) AND LicenseRef-Debian-thing-own-terms"
    assert (package.source, package.source_version) == ("thing", "1:2.0-3")
    texts = collect.of_root(tmp_path).texts
    assert texts["LicenseRef-Debian-thing-own-terms"] == "Do as you like,\n.\nbut do it well."


def test_another_copyright_file_is_named_and_not_guessed_from(tmp_path: Path) -> None:
    package = found(sound(tmp_path), Kind.debian, "old")
    assert (package.licence, package.said_in) == (NOASSERTION, "/usr/share/doc/old/copyright")


def test_only_the_licences_of_files_count() -> None:
    text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
    text += "Files: *\nLicense: Zlib\n\nLicense: Beerware\n A text that stands there for nothing.\n"
    assert copyright_of(text, "x").licence == "Zlib"


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        (("License-Expression: mit and apache-2.0",), "MIT AND Apache-2.0"),
        (("License-Expression: LicenseRef-NVIDIA AND mit",), "LicenseRef-NVIDIA AND MIT"),
        (("License-Expression: LicenseRef-NVIDIA-Proprietary",), "LicenseRef-NVIDIA-Proprietary"),
        (("License-Expression: (MIT",), "LicenseRef-MIT"),
        (("License: Apache License, Version 2.0",), "Apache-2.0"),
        (("License: BSD", "Classifier: License :: OSI Approved :: BSD License"), "LicenseRef-BSD"),
        (("License: BSD 3-Clause License", "        ", "        Copyright"), "BSD-3-Clause"),
        (("License: UNKNOWN", "Classifier: License :: OSI Approved :: ISC License (ISCL)"), "ISC"),
        (("License: Intel EULA", "Classifier: License :: Other/Proprietary License"), "LicenseRef-Intel-EULA"),
        (("Classifier: License :: Other/Proprietary License",), "LicenseRef-Proprietary"),
        (("License: " + "words " * 100,), NOASSERTION),
        ((), NOASSERTION),
    ],
)
def test_licences_of_python_packages(tmp_path: Path, headers: tuple[str, ...], licence: str) -> None:
    rootfs = Rootfs(tmp_path)
    rootfs.python("vllm", "thing", "1", *headers)
    assert found(rootfs, Kind.python, "thing").licence == licence


def test_a_licence_file_is_used_when_its_title_says_what_it_is(tmp_path: Path) -> None:
    rootfs = Rootfs(tmp_path)
    rootfs.python("vllm", "thing", "1", "License-File: LICENSE")
    rootfs.file(f"{ENVS}/vllm/lib/python3.11/site-packages/thing-1.dist-info/licenses/LICENSE", "\n# MIT License\n\nCo")
    assert found(rootfs, Kind.python, "thing").licence == "MIT"


def test_locks_are_read_with_their_hashes() -> None:
    one, two = "a" * 64, "b" * 64
    text = (
        f"# x\nfoo-bar[x]==1.0 \\\n    --hash=sha256:{one} \\\n    --hash=sha256:{two}\nbaz==2 ; python_version > '3'\n"
    )
    assert locked(text) == {("foo-bar", "1.0"): [one, two], ("baz", "2"): []}


def test_broken_metadata_is_listed_by_its_folder_and_told(tmp_path: Path) -> None:
    rootfs = Rootfs(tmp_path)
    packages = f"{ENVS}/vllm/lib/python3.11/site-packages"
    rootfs.file(f"{packages}/nothing-1.0.dist-info/RECORD", b"\xff\xfe")
    rootfs.file(f"{packages}/nameless-2.0.dist-info/METADATA", "Version: 2.0\n\n")
    rootfs.file(f"{packages}/binary-3.0.dist-info/METADATA", bytes(range(256)) * 10)
    rootfs.file(
        f"{packages}/latin-4.0.dist-info/METADATA", "Name: latin\nVersion: 4.0\nAuthor: Müller\n".encode("latin-1")
    )
    rootfs.file(f"{packages}/escape-5.0.dist-info/METADATA", "Name: esc\x1b[31mape\nVersion: 5\x00.0\nLicense: MIT\n")
    inventory = collect.of_root(tmp_path)
    names = {package.name: package for package in inventory.of(Kind.python)}
    assert {"nothing", "nameless", "binary", "latin"} <= names.keys()
    assert names["nothing"].version == "1.0" and names["latin"].supplier == "Müller"
    assert all(char.isprintable() for package in inventory.packages for char in f"{package.name}{package.version}")
    assert sum("METADATA" in problem for problem in inventory.problems) == 3


def test_hostile_packages_of_npm(tmp_path: Path) -> None:
    rootfs = Rootfs(tmp_path)
    modules = "web/node_modules"
    rootfs.npm(f"{modules}/nameless", {"version": "1.0.0"})
    rootfs.npm(f"{modules}/broken", "{")
    rootfs.npm(f"{modules}/deep", "[" * 100_000)
    rootfs.npm(f"{modules}/list", "[]")
    rootfs.npm(f"{modules}/typed", {"name": ["x"], "version": {"y": 1}, "license": 7, "author": [], "homepage": {}})
    rootfs.npm(f"{modules}/lying", {"name": "../../etc/passwd", "version": "1"})
    rootfs.npm(f"{modules}/closed", {"name": "closed", "version": "1", "license": "UNLICENSED"})
    rootfs.npm(f"{modules}/huge", '{"name": "huge", "x": "' + "x" * 2**21 + '"}')
    (tmp_path / "opt/aisandbox" / modules / "empty").mkdir()
    inventory = collect.of_root(tmp_path)
    found_names = {package.name for package in inventory.of(Kind.npm)}
    assert found_names == {"nameless", "broken", "deep", "list", "typed", "lying", "closed", "huge"}
    assert found(rootfs, Kind.npm, "closed").licence == "LicenseRef-Proprietary"
    assert sum("package.json" in problem for problem in inventory.problems) == 7


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: MIT\n"
    )
    rootfs = Rootfs(tmp_path / "root")
    for number, target in enumerate((str(outside), "../../../../../../outside", "copyright", "/proc/self/environ")):
        rootfs.debian(f"p{number}", "1")
        rootfs.link(f"usr/share/doc/p{number}/copyright", target)
    rootfs.link("opt/aisandbox/envs", "/")
    inventory = collect.of_root(rootfs.root)
    assert [package.licence for package in inventory.of(Kind.debian)] == [NOASSERTION] * 4
    assert len([problem for problem in inventory.problems if "copyright" in problem]) == 4


def test_loops_of_links_end(tmp_path: Path) -> None:
    rootfs = sound(tmp_path)
    rootfs.link("opt/aisandbox/web/node_modules/loop", "..")
    rootfs.link("opt/aisandbox/envs/loop", "loop")
    rootfs.link(f"{ENVS}/vllm/lib/python3.12", "python3.11/..")
    assert collect.of_root(rootfs.root).of(Kind.npm)


def test_an_empty_folder_is_told_of(tmp_path: Path) -> None:
    inventory = collect.of_root(tmp_path)
    assert inventory.packages == () and inventory.problems == ("/var/lib/dpkg/status: missing or not readable",)


def test_a_hostile_package_database(tmp_path: Path) -> None:
    rootfs = Rootfs(tmp_path)
    rootfs.file(
        "var/lib/dpkg/status", b"\xff\xff\nPackage\n: x\n\n  lost\n\nPackage: a\nStatus: install ok installed\n\n"
    )
    inventory = collect.of_root(tmp_path)
    assert [(package.name, package.version) for package in inventory.of(Kind.debian)] == [("a", "")]
    assert len(inventory.problems) == 2
