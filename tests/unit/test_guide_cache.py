"""The cache layout of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from aisandbox.guide.cache import write_model

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


def test_the_layout_is_that_of_the_hub(tmp_path: Path) -> None:
    snapshot = write_model(tmp_path, "owner/name", FILES)
    home = tmp_path / "models--owner--name"
    commit = (home / "refs" / "main").read_text()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert snapshot == home / "snapshots" / commit
    for name, content in FILES.items():
        assert (snapshot / name).is_symlink()
        assert not (snapshot / name).readlink().is_absolute()
        assert (snapshot / name).resolve() == (home / "blobs" / hashlib.sha256(content).hexdigest()).resolve()
        assert (snapshot / name).read_bytes() == content


def test_the_commit_follows_from_the_content(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", "owner/name", FILES)
    assert write_model(tmp_path / "b", "owner/name", dict(reversed(FILES.items()))).name == first.name
    assert write_model(tmp_path / "c", "owner/name", FILES | {"config.json": b"[]"}).name != first.name
    assert (
        write_model(tmp_path / "d", "owner/name", {"other": b"{}", "model.safetensors": b"weights"}).name != first.name
    )


def test_writing_again_replaces_the_model(tmp_path: Path) -> None:
    old = write_model(tmp_path, "owner/name", FILES)
    new = write_model(tmp_path, "owner/name", {"config.json": b"new"})
    assert not old.exists()
    assert [path.name for path in new.iterdir()] == ["config.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["models--owner--name"]
