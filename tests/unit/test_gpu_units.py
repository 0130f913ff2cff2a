"""What the units of the cuda flavour may open, and that systemd takes their order."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.test_service_limits import SERVICES, UNITS, rendered, service

GPU = ("aisandbox-gpu", "aisandbox-fabric")


def analyze(*arguments: str) -> str:
    command = ["systemd-analyze", "--no-pager", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def test_the_engine_may_open_gpus_and_no_other_device(tmp_path: Path) -> None:
    unit = service("vllm")
    assert unit["DevicePolicy"] == "closed"
    assert "PrivateDevices" not in unit
    file = tmp_path / "engine.service"
    file.write_text(
        "\n".join(
            ["[Service]", "ExecStart=/bin/true", *(f"{key}={unit[key]}" for key in ("DevicePolicy", "DeviceAllow"))]
        )
    )
    shown = analyze("security", "--offline=true", str(file))
    (acl,) = (line for line in shown.splitlines() if " DeviceAllow= " in line)
    assert "Service has a device ACL with some special devices: char-nvidia*:rw" in acl


def test_no_other_service_is_shut_off_from_devices_by_it() -> None:
    assert [name for name in SERVICES if "DevicePolicy" in service(name)] == ["vllm"]


@pytest.mark.parametrize("name", GPU)
def test_what_prepares_gpus_never_fails_the_boot_and_may_make_device_files(name: str) -> None:
    unit = rendered(f"{name}.service.j2")
    assert unit["ExecStart"].startswith("-")
    assert int(unit["TimeoutStartSec"]) > 0
    # Each would keep device files or modules from it; the last one by a list of devices that it brings.
    assert {"PrivateDevices", "ProtectKernelModules", "CapabilityBoundingSet", "ProtectClock"} & unit.keys() == set()
    assert "vllm.service" in unit["Before"].split()


def test_systemd_finds_no_cycle_and_no_mistake(tmp_path: Path) -> None:
    for name in (*GPU, "aisandbox-configure"):
        text = (UNITS / f"{name}.service.j2").read_text()
        plain = text.replace("/usr/local/bin/aisandbox", "/bin/true").replace(
            "{{ manifest.product.support_url }}", "man:a"
        )
        (tmp_path / f"{name}.service").write_text("\n".join(line for line in plain.splitlines() if "{{" not in line))
    for name in ("vllm", "nvidia-persistenced"):
        (tmp_path / f"{name}.service").write_text("[Service]\nExecStart=/bin/true\n")
    said = analyze("verify", "--man=no", *(str(path) for path in tmp_path.glob("*.service")))
    assert [line for line in said.splitlines() if "aisandbox" in line or "cycle" in line] == []
