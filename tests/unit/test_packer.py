"""Real Packer through our client: the templates are valid, and its failures are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from aisandbox.builder import packer_client
from aisandbox.builder.errors import BuildError
from aisandbox.manifest import REPOSITORY


def test_the_local_template_is_valid() -> None:
    packer_client.validate(REPOSITORY / "packer/local.pkr.hcl", {"layer": "base", "inventory": "x", "vars_file": "y"})


def test_a_bad_template_is_refused_in_packers_words(tmp_path: Path) -> None:
    template = tmp_path / "bad.pkr.hcl"
    template.write_text('source "null" "x" {\n  communicator = \n}\n')
    with pytest.raises(BuildError, match=r"bad\.pkr\.hcl"):
        packer_client.validate(template, {})


def test_a_failing_build_names_the_log(tmp_path: Path) -> None:
    template = tmp_path / "failing.pkr.hcl"
    template.write_text(
        'source "null" "x" {\n  communicator = "none"\n}\n'
        'build {\n  sources = ["source.null.x"]\n'
        '  provisioner "shell-local" {\n    inline = ["echo gone wrong", "exit 3"]\n  }\n}\n'
    )
    log = tmp_path / "log"
    with pytest.raises(BuildError, match="failing") as caught:
        packer_client.build(template, {}, log)
    assert str(log) in caught.value.fix
    assert "gone wrong" in log.read_text()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("Packer v1.2.3", "too old"),
        ("Packer v1.6.5", r"1\.6\.5 is too old; 1\.6\.6 or later"),
        ("packer 1.0 - a dictionary tool", "not HashiCorp Packer"),
    ],
)
def test_the_wrong_packer_is_refused(output: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "packer"
    fake.write_text(f"#!/bin/sh\necho '{output}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BuildError, match=words) as caught:
        packer_client.version()
    assert "apt-get install packer" in caught.value.fix
