"""Every unit has bounds of its own on memory, processes and its part of the journal; who goes first is decided."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.plugins.filter.core import FilterModule  # type: ignore[import-untyped]

from aisandbox.instance.fit.hardware import GIB
from aisandbox.instance.fit.sizing import fit
from aisandbox.manifest import REPOSITORY
from tests.support.appliance import MANIFEST

CATALOGUE = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())
SERVICES = CATALOGUE["services"]
OF_ANSIBLE = FilterModule().filters()
UNITS = REPOSITORY / "templates" / "systemd"
LONG_RUNNING = {"aisandbox-certificate", "aisandbox-model", "aisandbox-status", "aisandbox-upgrade"}
LIMITS = ("MemoryMax", "MemoryHigh", "TasksMax", "OOM", "LogRateLimit", "LimitNOFILE", "Restart")
OWN_PROGRAM = 3 * GIB // 2
"""What vLLM takes beside weights and cache."""


def rendered(template: str, **variables: Any) -> dict[str, str]:
    """The settings of a unit, as Ansible renders it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)  # noqa: S701 - no HTML
    environment.filters |= {name: OF_ANSIBLE[name] for name in ("dict2items", "flatten", "regex_replace")}
    text = environment.from_string((UNITS / template).read_text()).render(manifest=MANIFEST, **variables)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def service(name: str) -> dict[str, str]:
    return rendered("service.j2", service_name=name, service=SERVICES[name] | {"environment": {}}, services=SERVICES)


def gateway() -> dict[str, str]:
    """What the role adds to Debian's unit of nginx."""
    tasks = yaml.safe_load((REPOSITORY / "roles" / "gateway" / "tasks" / "main.yml").read_text())
    (dropin,) = [
        task["ansible.builtin.copy"] for task in tasks if "nginx.service.d/" in str(task.get("ansible.builtin.copy"))
    ]
    text = jinja2.Template(dropin["content"]).render(CATALOGUE)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def every() -> dict[str, dict[str, str]]:
    units = {name: rendered(f"{name}.service.j2") for name in LONG_RUNNING}
    return units | {name: service(name) for name in SERVICES} | {"nginx": gateway()}


@pytest.mark.parametrize("name", [*SERVICES, "nginx", *sorted(LONG_RUNNING)])
def test_every_service_has_bounds_and_comes_back(name: str) -> None:
    unit = every()[name]
    assert {"MemoryMax", "TasksMax", "Restart"} <= unit.keys()
    assert unit["Restart"] == ("always" if name in {*SERVICES, "nginx", "aisandbox-status"} else "on-failure")
    assert "infinity" not in unit.values()


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_fills_the_journal_alone(name: str) -> None:
    unit = service(name)
    assert (unit["LogRateLimitIntervalSec"], unit["LogRateLimitBurst"]) == ("30s", "1000")


def test_the_sandbox_goes_first_and_the_gateway_last() -> None:
    scores = {name: int(unit["OOMScoreAdjust"]) for name, unit in every().items() if "OOMScoreAdjust" in unit}
    assert sorted(scores, key=lambda name: -scores[name])[-4:] == ["auxiliary", "vllm", "open-webui", "nginx"]
    inside = {scores[name] for name, entry in SERVICES.items() if entry.get("slice") == "sandbox.slice"}
    assert inside == {max(scores.values())} and scores["nginx"] < 0


def test_only_what_starts_its_processes_again_survives_the_end_of_one() -> None:
    continuing = {name for name, unit in every().items() if unit.get("OOMPolicy") == "continue"}
    sandbox = {name for name, entry in SERVICES.items() if entry.get("slice") == "sandbox.slice"}
    assert continuing == sandbox | {"auxiliary", "nginx", "aisandbox-model"}


def test_one_program_of_the_sandbox_leaves_room_to_the_others() -> None:
    """Within the slice, a fork bomb or a hog in one service keeps no other from starting a process."""
    whole = rendered("sandbox.slice.j2")
    for name, entry in SERVICES.items():
        if entry.get("slice") == "sandbox.slice":
            unit = service(name)
            assert int(unit["TasksMax"]) <= int(whole["TasksMax"]) - 1000
            assert int(unit["MemoryMax"].rstrip("%")) < int(whole["MemoryMax"].rstrip("%"))


def test_a_machine_of_4_gib_holds_the_guide() -> None:
    """About 2.5 GiB in all: vLLM 1.5, the chat page 0.7, the rest small."""
    most = {
        name: int(unit["MemoryMax"].rstrip("%")) * 4 / 100 for name, unit in every().items() if "%" in unit["MemoryMax"]
    }
    needed = {
        "vllm": 2.0,
        "open-webui": 1.2,
        "auxiliary": 1.0,
        "nginx": 0.3,
        "sandbox-browser": 1.0,
        "sandbox-api": 1.0,
    }
    assert {name: gib for name, gib in needed.items() if most[name] < gib} == {}


@pytest.mark.parametrize("ram", [4, 8, 16, 24, 25, 30, 64, 256, 1024])
def test_what_the_engine_is_sized_to_lies_within_its_bound(ram: int) -> None:
    bound = int(service("vllm")["MemoryMax"].rstrip("%")) / 100 * ram * GIB
    sized = min(ram * GIB - fit.CPU_OTHERS, fit.CPU_SHARE * ram * GIB)
    assert sized + OWN_PROGRAM <= bound


def test_systemd_takes_the_values(tmp_path: Path) -> None:
    for name, unit in every().items():
        limits = [f"{key}={value}" for key, value in unit.items() if key.startswith(LIMITS)]
        lines = ["[Service]", "ExecStart=/bin/true", *limits, ""]
        (tmp_path / f"limits-of-{name}.service").write_text("\n".join(lines))
    units = sorted(map(str, tmp_path.glob("*.service")))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, timeout=60
    )
    assert [line for line in checked.stderr.splitlines() if "limits-of-" in line] == []
