"""What differs between two images: packages by their manifests, and files."""

from __future__ import annotations

import json
import os
import py_compile
from pathlib import Path
from typing import Any

import pytest

from aisandbox.builder.errors import BuildError
from aisandbox.builder.supply import collect, compare
from tests.support.rootfs import sound

RECORD: dict[str, Any] = {
    "version": "0.1.0",
    "flavour": "cpu",
    "image": "appliance-1",
    "packages": {
        "debian": {"nginx": "1.22-1", "curl": "7.88"},
        "python": {"vllm": {"torch": "2.9"}, "open-webui": {"torch": "2.9"}},
        "npm": {"left": ["1.0.0", "2.0.0"]},
    },
    "locks": {"vllm-cpu.txt": "aa"},
}


def written(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({**RECORD, **changes}))
    return folder


def test_two_releases_are_told_apart(tmp_path: Path) -> None:
    packages = {
        "debian": {"nginx": "1.22-2", "wget": "1.21"},
        "python": {"vllm": {"torch": "2.10"}, "open-webui": {"torch": "2.9"}},
        "npm": {"left": ["2.0.0"]},
    }
    after = written(
        tmp_path / "b", version="0.2.0", image="appliance-2", packages=packages, locks={"vllm-cpu.txt": "bb"}
    )
    assert compare.manifests(written(tmp_path / "a"), after / "manifest.json") == (
        "# 0.1.0 cpu (appliance-1) → 0.2.0 cpu (appliance-2)\n\n"
        "## Packages\n\n3 changed, 1 added, 1 removed.\n\n"
        "- Debian: nginx: 1.22-1 → 1.22-2\n"
        "- Python in vllm: torch: 2.9 → 2.10\n"
        "- npm: left: 1.0.0, 2.0.0 → 2.0.0\n"
        "- Debian: wget: added, 1.21\n"
        "- Debian: curl: removed, was 7.88\n\n"
        "## Locks\n\n- locks/vllm-cpu.txt\n"
    )


def test_the_same_image(tmp_path: Path) -> None:
    folder = written(tmp_path / "a")
    said = compare.manifests(folder, folder)
    assert "Both are the same image." in said and "The packages are the same." in said


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({**RECORD, "packages": 7}), json.dumps({**RECORD, "locks": [7]}), "[" * 10**5],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    folder = written(tmp_path / "a")
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(BuildError, match="is no manifest of an image"):
        compare.manifests(folder, tmp_path / "b.json")
    with pytest.raises(BuildError, match="cannot be read"):
        compare.manifests(folder, tmp_path / "none")


def test_inventories_are_compared_by_name_and_version(tmp_path: Path) -> None:
    first, second = sound(tmp_path / "a"), sound(tmp_path / "b")
    assert not compare.compare(collect.of_root(first.root), collect.of_root(second.root))
    second.debian("new", "1")
    second.python("vllm", "torch", "2")
    found = compare.compare(collect.of_root(first.root), collect.of_root(second.root))
    assert dict(found.added) == {"Debian: new": "1", "Python in vllm: torch": "2"}
    assert not found.removed and not found.changed


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same files."""
    for name in ("a", "b"):
        folder = tmp_path / name
        (folder / "usr").mkdir(parents=True)
        (folder / "usr/file").write_text("content")
        (folder / "usr/link").symlink_to("file")
        (folder / "usr/loop").symlink_to("loop")
        (folder / "usr/code.py").write_text("x = 1\n")
        os.utime(folder / "usr/code.py", (1_000_000_000 if name == "a" else 1_100_000_000,) * 2)
        py_compile.compile(str(folder / "usr/code.py"), str(folder / "usr/code.pyc"), "/usr/code.py")
    return tmp_path / "a", tmp_path / "b"


def test_times_alone_do_not_count(trees: tuple[Path, Path]) -> None:
    found = compare.compare_files(*trees)
    assert found.unexplained == []
    assert found.explained == {"byte-code tells when its source was installed": ["/usr/code.pyc"]}
    assert found.same == 5


def test_every_other_difference_is_told(trees: tuple[Path, Path]) -> None:
    _, after = trees
    (after / "usr/file").write_text("other")
    (after / "usr/link").unlink()
    (after / "usr/link").symlink_to("elsewhere")
    (after / "usr/loop").unlink()
    (after / "usr/code.py").chmod(0o600)
    (after / "usr/new").mkdir()
    assert compare.compare_files(*trees).unexplained == [
        "/usr/code.py",
        "/usr/file",
        "/usr/link",
        "/usr/loop",
        "/usr/new",
    ]


def test_other_code_is_no_matter_of_time(trees: tuple[Path, Path]) -> None:
    _, after = trees
    (after / "usr/code.py").write_text("x = 2\n")
    py_compile.compile(str(after / "usr/code.py"), str(after / "usr/code.pyc"), "/usr/code.py")
    assert compare.compare_files(*trees).unexplained == ["/usr/code.py", "/usr/code.pyc"]


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("root:*:20415:0:99999:7:::", True),
        ("root:*:0:0:99999:7:::", False),
        ("root:*::0:99999:7:::", False),
        ("root:*:20414:0:99999:7:::\n", False),
        ("root::20414:0:99999:7:::", False),
        ("root:*:20414:0:99999:7::1:", False),
        ("other:*:20414:0:99999:7:::", False),
        ("root:*:20414:0:99999:7:::\nmore:*:20414:0:99999:7:::", False),
    ],
)
def test_an_account_may_be_of_another_day_and_no_more(trees: tuple[Path, Path], line: str, same: bool) -> None:
    for folder, content in zip(trees, ("root:*:20414:0:99999:7:::", line), strict=True):
        (folder / "etc").mkdir()
        (folder / "etc/shadow").write_text(content + "\n")
    assert compare.compare_files(*trees).unexplained == ([] if same else ["/etc/shadow"])
