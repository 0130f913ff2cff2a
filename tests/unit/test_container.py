"""What a failed bake says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aisandbox.builder import container

LOG = "  null.local: TASK [python_env : Make the environment]\n  null.local: fatal: [rootfs]: FAILED! => {}\x1b[0m\n"


def log(path: Path, **facts: str) -> Path:
    file = path / "log"
    file.write_text(LOG.format(json.dumps(facts)))
    return file


def test_the_failed_task_and_its_words(tmp_path: Path) -> None:
    file = log(tmp_path, msg="non-zero return code", stderr="first\nhash mismatch for torch")
    error = container._failure(file, "")
    assert str(error) == "python_env : Make the environment: first / hash mismatch for torch"
    assert str(file) in error.fix


@pytest.mark.parametrize("words", ["error sending request for url (https://mirror.test/simple/)", "Failed to fetch: x"])
def test_an_unreachable_registry_is_named_as_such(tmp_path: Path, words: str) -> None:
    error = container._failure(log(tmp_path, stderr=words), "")
    assert str(error).startswith("a package registry could not be reached.")
    assert "pip config" in error.fix


def test_without_a_task_the_last_line_tells(tmp_path: Path) -> None:
    assert str(container._failure(tmp_path / "none", "one\ntwo\n")) == "two"
