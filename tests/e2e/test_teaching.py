"""The library that taught the guide, with a small model: from a file of conversations to an adapter that answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from aisandbox.manifest import REPOSITORY
from tests.support import teaching


def test_a_model_learns_from_a_file_and_says_it_again(tmp_path: Path) -> None:
    told = json.loads(teaching.run("tests.support.teach_a_little", str(tmp_path)))
    assert told["answers"] == told["learned"]
    assert (told["made_from"], told["changed"]) == ("digest", told["targets"])
    kept, epochs = told["epochs"]
    assert kept == epochs and told["progress"].startswith(f"step {epochs} of {epochs}")
    assert len(told["refused"]) == 5, told["refused"]


@pytest.mark.timeout(1200)
def test_make_guide_goes_all_the_way(tmp_path: Path) -> None:
    """With a few lessons: the base is read and asked, taught, and the adapter is written."""
    out = tmp_path / "adapter.safetensors"
    command = ["make", "guide", "SAMPLE=4", f"OUT={out}"]
    environment = {**os.environ, **teaching.THREADS}
    said = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout
    assert "4 of 4 answered" in said and re.search(r"step (\d+) of \1, loss", said) and f"wrote {out}" in said
    assert 1_000_000 < out.stat().st_size <= 6_000_000
    assert b"a sample of 4" in out.read_bytes()[:100_000]
