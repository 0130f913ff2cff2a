"""What root prepares for CUDA, with stand-ins of nvidia-modprobe and systemctl that record how they are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aisandbox.instance.fit import gpu
from aisandbox.instance.observe import status
from aisandbox.instance.places import Places
from aisandbox.instance.run import services
from tests.support import appliance
from tests.support.appliance import MANIFEST

SHOW = (
    "Id=nvidia-fabricmanager.service\nLoadState={}\nActiveState=inactive\nSubState=dead\nResult=success\nNRestarts=0\n"
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path / "root", "cuda")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-ins write how they were called; no other program can be found."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    services.backend.cache_clear()
    return tmp_path / "calls"


LIKE_THE_REAL_ONE = """
while [ $# -gt 0 ]; do case "$1" in
  -u) shift ;;
  -c) case "$2" in ""|*[!0-9]*) exit 1 ;; esac; shift 2 ;;
  -f) [ -f "$2" ] || exit 1; shift 2 ;;
  *) exit 1 ;;
esac; done"""
"""What nvidia-modprobe takes of its options (NVIDIA/nvidia-modprobe, nvidia-modprobe.c)."""


def program(calls: Path, name: str, script: str = "") -> None:
    """A program that records its name and arguments, one call a line, and then runs the script."""
    file = calls.parent / "bin" / name
    file.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{script}\n')
    file.chmod(0o755)


def device(places: Places, address: str, vendor: str, kind: str, vpd: bytes = b"") -> None:
    """A PCI device, as the kernel shows it."""
    folder = places.root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")
    if vpd:
        (folder / "vpd").write_bytes(vpd)


def gpus(places: Places, *minors: int) -> None:
    """GPUs that the driver runs."""
    for minor in minors:
        device(places, f"0000:0{minor}:00.0", "0x10de", "0x030200")
        folder = places.root / "proc/driver/nvidia/gpus" / f"0000:0{minor}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t NVIDIA H200\nIRQ:   \t\t 91\nDevice Minor: \t {minor}\n")


def mig(places: Places, *instances: str) -> Path:
    """Capabilities of MIG instances, as the driver shows them."""
    folder = places.root / "proc/driver/nvidia/capabilities"
    for path in ("mig/config", "mig/monitor", *(f"{instance}/access" for instance in instances)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("DeviceFileMinor: 1\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    return folder


def reported(places: Places, name: str) -> tuple[str, str]:
    """State and what was said, with the fix."""
    report = json.loads(places.status(name).read_text())
    return report["state"], f"{report['message']} {report['fix']}"


def shown(places: Places) -> list[str]:
    return [f"{problem} {problem.fix}" for problem in status.compose(places, MANIFEST).problems]


def test_driver_gpus_and_unified_memory_in_that_order(places: Places, calls: Path) -> None:
    gpus(places, 1, 0)
    program(calls, "nvidia-modprobe", LIKE_THE_REAL_ONE)
    gpu.prepare(places)
    assert calls.read_text().splitlines() == [
        "nvidia-modprobe ",
        "nvidia-modprobe -c 255 -c 0 -c 1",
        "nvidia-modprobe -u -c 0",
    ]
    assert reported(places, "gpu") == ("done", "The device files of 2 GPU(s) are ready. ")
    assert shown(places) == []


def test_mig_instances_may_be_opened_but_not_changed(places: Places, calls: Path) -> None:
    gpus(places, 0)
    folder = mig(places, "gpu0/mig/gi1", "gpu0/mig/gi1/ci0")
    program(calls, "nvidia-modprobe", LIKE_THE_REAL_ONE)
    gpu.prepare(places)
    files = [f"{folder}/gpu0/mig/gi1/access", f"{folder}/gpu0/mig/gi1/ci0/access", f"{folder}/mig/monitor"]
    assert calls.read_text().splitlines()[-1] == f"nvidia-modprobe -f {' -f '.join(files)}"


def test_without_mig_instances_no_capability_is_asked_for(places: Places, calls: Path) -> None:
    gpus(places, 0)
    mig(places)
    program(calls, "nvidia-modprobe", LIKE_THE_REAL_ONE)
    gpu.prepare(places)
    assert "-f" not in calls.read_text()


def test_a_missing_program_is_a_problem_with_its_fix_and_no_crash(places: Places, calls: Path) -> None:
    gpus(places, 0)
    gpu.prepare(places)
    state, said = reported(places, "gpu")
    assert state == "failed"
    assert "nvidia-modprobe is not installed" in said
    assert "sudo apt-get install nvidia-modprobe && sudo systemctl restart aisandbox-gpu vllm" in said
    assert shown(places) == [said]


def test_a_missing_program_is_no_problem_where_a_driver_of_another_kind_made_the_files(
    places: Places, calls: Path
) -> None:
    gpus(places, 0)
    (places.root / "dev").mkdir()
    for name in ("nvidiactl", "nvidia-uvm"):
        (places.root / "dev" / name).touch()
    gpu.prepare(places)
    assert reported(places, "gpu")[0] == "done"
    (places.root / "dev/nvidia-uvm").unlink()
    gpu.prepare(places)
    assert reported(places, "gpu")[0] == "failed"


@pytest.mark.parametrize("step", ["", "-c", "-u"])
def test_a_step_that_fails_is_told_with_what_it_said(places: Places, calls: Path, step: str) -> None:
    gpus(places, 0)
    program(calls, "nvidia-modprobe", f'[ "$1" != "{step}" ] || {{ echo NVIDIA: failed >&2; exit 1; }}')
    gpu.prepare(places)
    state, said = reported(places, "gpu")
    assert state == "failed"
    assert "failed with status 1: NVIDIA: failed" in said
    assert calls.read_text().splitlines()[-1].startswith(f"nvidia-modprobe {step}")


@pytest.mark.parametrize("on", [True, False])
def test_a_module_that_secure_boot_refuses(places: Places, calls: Path, on: bool) -> None:
    gpus(places, 0)
    variable = places.root / gpu.SECURE_BOOT
    variable.parent.mkdir(parents=True)
    variable.write_bytes(b"\x06\x00\x00\x00" + bytes([on]))
    program(calls, "nvidia-modprobe", "exit 1")
    gpu.prepare(places)
    assert ("Secure Boot is on" in reported(places, "gpu")[1]) is on


def test_a_program_that_hangs_does_not_hold_the_boot(
    places: Places, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "MODPROBE_TIMEOUT_S", 0.2)
    gpus(places, 0)
    program(calls, "nvidia-modprobe", "exec /bin/sleep 20")
    gpu.prepare(places)
    assert "did not end within" in reported(places, "gpu")[1]


def test_a_machine_without_a_gpu_is_left_alone(places: Places, calls: Path) -> None:
    device(places, "0000:00:01.0", "0x1af4", "0x020000")
    program(calls, "nvidia-modprobe", LIKE_THE_REAL_ONE)
    gpu.prepare(places)
    assert not calls.exists()
    assert reported(places, "gpu") == ("done", "This machine has no NVIDIA GPU. ")
    assert shown(places) == []


@pytest.mark.parametrize("managed", [False, True])
def test_the_fabric_manager_starts_where_there_are_switches(places: Places, calls: Path, managed: bool) -> None:
    gpus(places, 0)
    if managed:
        device(places, "0000:40:00.0", "0x15b3", "0x020700", b"\x82\x10\x00ConnectX-7\x90SMDL SW_MNG\x78")
    else:
        device(places, "0000:40:00.0", "0x10de", "0x068000")
    program(calls, "systemctl", f"[ \"$1\" != show ] || printf '{SHOW.format('loaded')}'")
    program(calls, "modprobe")
    gpu.start_fabric(places)
    made = [line for line in calls.read_text().splitlines() if " show " not in line]
    assert made == ["modprobe ib_umad"] * managed + ["systemctl start nvidia-fabricmanager.service"]
    assert reported(places, "fabric") == ("done", "The NVSwitches are ready. ")
    assert shown(places) == []


def test_no_fabric_manager_without_switches(places: Places, calls: Path) -> None:
    gpus(places, 0, 1)
    device(places, "0000:41:00.0", "0x15b3", "0x020700", b"an adapter of the network")
    device(places, "0000:42:00.0", "0x8086", "0x068000")
    program(calls, "systemctl")
    places.status("fabric").parent.mkdir(parents=True)
    places.status("fabric").write_text('{"state": "failed", "message": "of another machine", "fix": ""}')
    gpu.start_fabric(places)
    assert not calls.exists()
    assert not places.status("fabric").exists()


def test_an_absent_fabric_manager_is_told_with_the_version_that_fits(places: Places, calls: Path) -> None:
    device(places, "0000:40:00.0", "0x10de", "0x068000")
    version = places.root / "sys/module/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("580.126.20\n")
    program(calls, "systemctl", f"printf '{SHOW.format('not-found')}'")
    gpu.start_fabric(places)
    state, said = reported(places, "fabric")
    assert state == "failed"
    assert "nvidia-fabricmanager is not installed" in said
    assert "sudo apt-get install 'nvidia-fabricmanager=580.126.20-*'" in said
    assert shown(places) == [said]


def test_a_fabric_manager_that_fails_is_told_with_its_last_words(places: Places, calls: Path) -> None:
    device(places, "0000:40:00.0", "0x10de", "0x068000")
    program(calls, "systemctl", f"[ \"$1\" = start ] && exit 1; printf '{SHOW.format('loaded')}'")
    words = "fabric manager NVIDIA GPU driver interface version 580.95.05 don't match with driver version 580.126.20"
    entry = json.dumps({"__MONOTONIC_TIMESTAMP": "1", "MESSAGE": f"error: {words}"})
    program(calls, "journalctl", f"/bin/cat <<'E'\n{entry}\nE")
    gpu.start_fabric(places)
    state, said = reported(places, "fabric")
    assert state == "failed"
    assert words in said
    assert "sudo systemctl restart aisandbox-fabric vllm" in said
    assert shown(places) == [said]
