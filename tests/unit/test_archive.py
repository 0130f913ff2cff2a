"""What the parts of a container's image hold."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from aisandbox.builder import archive
from aisandbox.builder.archive import Image, Part, members
from aisandbox.builder.errors import BuildError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system."""
    root = tmp_path / "root"
    for file in ("bin/sh", "opt/heavy/lib/a", "opt/heavy/b", "opt/light", "proc/1/x", "dev/null", "opt/link-target/c"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    (root / "opt" / "link").symlink_to("link-target")
    return root


def test_parts_hold_everything_once(root: Path) -> None:
    heavy = list(members(root, Part("heavy", str(root), only=("opt/heavy",))))
    rest = list(members(root, Part("rest", str(root), without=("opt/heavy",))))
    assert heavy == [".", "./opt", "./opt/heavy", "./opt/heavy/b", "./opt/heavy/lib", "./opt/heavy/lib/a"]
    assert set(heavy) & set(rest) == {".", "./opt", "./opt/heavy"}, "folders are in both, files are not"
    assert len(rest) == len(set(rest))
    assert {"./bin/sh", "./opt/light", "./opt/link", "./opt/link-target/c"} <= set(rest)


def test_a_part_is_packed_with_its_files_alone(root: Path, tmp_path: Path) -> None:
    (root / "opt" / "heavy" / "b").write_text("content")
    digest = archive._pack(Part("heavy", str(root), only=("opt/heavy",)), tmp_path / "heavy.tar")
    assert hashlib.sha256((tmp_path / "heavy.tar").read_bytes()).hexdigest() == digest
    with tarfile.open(tmp_path / "heavy.tar") as packed:
        assert packed.getnames()[1:] == [
            "./opt",
            "./opt/heavy",
            "./opt/heavy/b",
            "./opt/heavy/lib",
            "./opt/heavy/lib/a",
        ]
        content = packed.extractfile("./opt/heavy/b")
        assert content
        assert content.read() == b"content"


def test_a_compressed_part_is_the_same_and_kept(tmp_path: Path) -> None:
    part = tmp_path / "part-0123.tar"
    part.write_bytes(b"content" * 1000)
    compressed = archive._compressed(part)
    assert gzip.decompress(compressed.read_bytes()) == part.read_bytes()
    made = compressed.stat()
    assert archive._compressed(part).stat() == made
    assert {file.name for file in tmp_path.iterdir()} == {part.name, compressed.name}


def test_what_the_engine_brings_is_left_out(root: Path) -> None:
    names = list(members(root, Part("all", str(root))))
    assert "./proc" in names
    assert not [name for name in names if name.startswith(("./proc/", "./dev/"))]
    assert "./opt/link/c" not in names


def test_changes_of_upper_layers_come_with_the_rest(root: Path, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "opt" / "heavy" / "cache").mkdir(parents=True)
    (upper / "opt" / "heavy" / "cache" / "new").touch()
    part = Part("rest", str(root), without=("opt/heavy",), changed=(str(upper),))
    assert {"./opt/heavy/cache", "./opt/heavy/cache/new"} <= set(members(root, part))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes whiteouts")
def test_a_removal_from_another_part_is_refused(root: Path, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "opt" / "heavy").mkdir(parents=True)
    os.mknod(upper / "opt" / "heavy" / "b", 0o020000, os.makedev(0, 0))
    with pytest.raises(BuildError, match=r"removes opt/heavy/b"):
        list(members(root, Part("rest", str(root), without=("opt/heavy",), changed=(str(upper),))))


def test_the_reference_changes_with_any_part(tmp_path: Path) -> None:
    parts = (Part("a-1", "x:y"), Part("b-1", "z:y"))
    image = Image("name", parts, tmp_path)
    assert image.reference == Image("name", parts, tmp_path).reference
    assert image.reference != Image("name", (parts[0], Part("b-2", "z:y")), tmp_path).reference
    assert image.lower == "z:y:x"
