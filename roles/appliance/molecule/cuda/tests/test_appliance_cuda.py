"""What an image with NVIDIA's driver has beside the cpu flavour's: its facts, and units that prepare the GPUs."""

from __future__ import annotations

import json

import pytest
import yaml
from testinfra.host import Host

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY

OPT = manifest.load().paths.opt
UNITS = yaml.safe_load((REPOSITORY / "roles" / "appliance" / "defaults" / "main.yml").read_text())[
    "appliance_gpu_units"
]


def test_kernel_driver_and_cuda_are_recorded(host: Host) -> None:
    release = json.loads(host.file(f"{OPT}/release.json").content_string)
    assert release["kernel"] in host.file("/lib/modules").listdir()
    assert (release["driver"], release["cuda"]) == ("580.126.20", "13.0.96")


@pytest.mark.parametrize("unit", UNITS)
def test_they_start_with_the_machine_and_systemd_accepts_them(host: Host, unit: str) -> None:
    assert host.service(unit.removesuffix(".service")).is_enabled
    checked = host.run(f"systemd-analyze verify --man=no {unit}")
    assert (checked.rc, checked.stderr) == (0, "")


def test_device_files_come_before_all_that_opens_them(host: Host) -> None:
    before = host.check_output("systemd-analyze cat-config systemd/system/aisandbox-gpu.service").splitlines()
    assert "Before=aisandbox-configure.service nvidia-persistenced.service vllm.service" in before
    checked = host.run("systemd-analyze verify --man=no multi-user.target")
    assert "cycle" not in checked.stderr


def test_without_a_gpu_they_do_nothing_and_succeed(host: Host) -> None:
    for command in ("gpu-devices", "gpu-fabric"):
        assert host.run(f"aisandbox --root /nowhere {command}").rc == 0
