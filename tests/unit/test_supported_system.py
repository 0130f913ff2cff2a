"""A system that no test boots is refused before anything is changed, and named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY

DEBIAN = ("Debian", "12", "bookworm", "x86_64")


def play(folder: Path, facts: tuple[str, str, str, str]) -> subprocess.CompletedProcess[str]:
    """Run what `base` and ansible/site.yml begin with, on a host with these facts."""
    names = ("distribution", "distribution_version", "distribution_release", "architecture")
    tasks = [
        {"ansible.builtin.set_fact": dict(zip(names, facts, strict=True)) | {"cacheable": True}},
        {"ansible.builtin.include_role": {"name": "base", "tasks_from": "supported"}},
    ]
    file = folder / "play.yml"
    file.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    variables = json.dumps({"manifest": manifest.load().model_dump(mode="json", by_alias=True)})
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(file), "-i", "localhost,", "-e", variables]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (("Ubuntu", "24.04", "noble", "x86_64"), "Ubuntu 24.04 (x86_64)"),
        (("Debian", "13.1", "trixie", "x86_64"), "Debian 13.1 (x86_64)"),
        (("Debian", "12.12", "bookworm", "aarch64"), "Debian 12.12 (aarch64)"),
    ],
)
def test_another_system_is_refused(facts: tuple[str, str, str, str], named: str, tmp_path: Path) -> None:
    played = play(tmp_path, facts)
    assert played.returncode != 0
    assert f"{named} is not supported: start from Debian 12 on x86_64. Nothing was changed." in played.stdout


def test_debian_12_goes_on(tmp_path: Path) -> None:
    played = play(tmp_path, DEBIAN)
    assert played.returncode == 0, played.stdout
    assert "DEPRECATION" not in played.stdout + played.stderr


def test_the_refusal_comes_before_all_else() -> None:
    site = yaml.safe_load((REPOSITORY / "ansible" / "site.yml").read_text())[0]["tasks"]
    assert ["ansible.builtin.set_fact" in site[0], "ansible.builtin.include_role" in site[1]] == [True, True]
    assert site[1]["ansible.builtin.include_role"] == {"name": "base", "tasks_from": "supported"}
    base = yaml.safe_load((REPOSITORY / "roles" / "base" / "tasks" / "main.yml").read_text())
    assert base[0]["ansible.builtin.import_tasks"] == "supported.yml"
