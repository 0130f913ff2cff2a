"""What `aisandbox connect` prints, run as it is: the programs answer, from this machine to the booted one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aisandbox.builder.machine import Machine
from tests.support.machines import MANIFEST, output, url

MODEL = MANIFEST.embedded_model.id


def told(machine: Machine, name: str) -> str:
    return machine.run(f"sudo aisandbox connect {name} 2>/dev/null").stdout


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_programs_answer(machine: Machine, name: str, tmp_path: Path) -> None:
    program = tmp_path / "client.py"
    program.write_text(told(machine, name))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, timeout=120)
    assert "AI Sandbox" in done.stdout


def test_the_command_answers(machine: Machine) -> None:
    done = subprocess.run(["sh", "-c", told(machine, "curl")], capture_output=True, text=True, check=True, timeout=120)
    assert "AI Sandbox" in json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_facts_are_those_of_the_machine(machine: Machine) -> None:
    settings = json.loads(told(machine, "opencode"))
    provider = settings["provider"]["aisandbox"]
    assert provider["options"] == {"baseURL": url(machine, "api", "/v1"), "apiKey": "none"}
    assert provider["models"] == {MODEL: {"name": MODEL, "limit": {"context": 4096, "output": 1024}}}


def test_a_file_is_the_callers(machine: Machine) -> None:
    file = "/tmp/claude-settings.json"
    output(machine, f"sudo aisandbox connect claude-code --write {file}")
    assert output(machine, f"stat -c '%U %a' {file}; cat {file}").startswith(f"{MANIFEST.os.default_user} 600\n{{")
    output(machine, f"rm {file}")
