"""Signatures by minisign: what was signed is verified, and everything else is refused with a way out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aisandbox.builder import signing
from aisandbox.builder.errors import BuildError
from aisandbox.builder.supply import checksums
from tests.support import keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "release.json"
    path.write_text("{}\n")
    return path


def test_a_signed_file_is_verified(tmp_path: Path, file: Path) -> None:
    pair = keys.make(tmp_path)
    assert signing.sign(file, pair.secret, "aisandbox 1.0").name == "release.json.minisig"
    signing.verify(file, pair.public.read_text())
    signing.verify(file, pair.line)


def test_the_same_file_gets_the_same_signature(tmp_path: Path, file: Path) -> None:
    pair = keys.make(tmp_path)
    first = signing.sign(file, pair.secret).read_bytes()
    assert signing.sign(file, pair.secret).read_bytes() == first


def test_a_changed_file_another_key_and_no_signature_are_refused(tmp_path: Path, file: Path) -> None:
    pair, other = keys.make(tmp_path / "a"), keys.make(tmp_path / "b")
    with pytest.raises(BuildError, match="has no signature"):
        signing.verify(file, pair.line)
    signing.sign(file, pair.secret)
    with pytest.raises(BuildError, match="key id"):
        signing.verify(file, other.line)
    file.write_text("{ }\n")
    with pytest.raises(BuildError, match="release.json"):
        signing.verify(file, pair.line)
    with pytest.raises(BuildError, match="no public key"):
        signing.verify(file, "not a key")


def test_a_password_comes_from_the_environment_only(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    password = "correct hörse"
    pair = keys.make(tmp_path, password)
    monkeypatch.delenv(signing.PASSWORD, raising=False)
    with pytest.raises(BuildError, match=f"{signing.PASSWORD} is not set"):
        signing.sign(file, pair.secret)
    monkeypatch.setenv(signing.PASSWORD, "wrong")
    with pytest.raises(BuildError, match="Wrong password") as caught:
        signing.sign(file, pair.secret)
    assert "wrong" not in str(caught.value) + caught.value.fix
    monkeypatch.setenv(signing.PASSWORD, password)
    checksums.sign(file, pair.secret, "aisandbox 1.0")
    signing.verify(file, pair.line)
    command = ["minisign", "-V", "-Q", "-p", str(pair.public), "-m", str(file)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "aisandbox 1.0"
    assert password not in "".join(capfd.readouterr())


@pytest.mark.parametrize("content", [None, "", "not a key\n", "untrusted comment: x\nnot base64!\n"])
def test_what_is_no_secret_key_is_refused(tmp_path: Path, file: Path, content: str | None) -> None:
    key = tmp_path / "minisign.key"
    if content is not None:
        key.write_text(content)
    with pytest.raises(BuildError) as caught:
        signing.sign(file, key)
    assert "minisign -G" in caught.value.fix


def test_minisign_itself_takes_the_signature(tmp_path: Path, file: Path) -> None:
    pair = keys.make(tmp_path)
    signing.sign(file, pair.secret, "aisandbox 1.0")
    command = ["minisign", "-V", "-Q", "-p", str(pair.public), "-m", str(file)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "aisandbox 1.0"
