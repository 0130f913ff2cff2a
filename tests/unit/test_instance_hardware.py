"""Looking at the machine: NVIDIA's Python library on a double of the shared library, and the kernel's files."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from aisandbox.instance import files
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.choose.resolve import resolve
from aisandbox.instance.commands.doctor import instance
from aisandbox.instance.fit import hardware
from aisandbox.instance.fit.hardware import Hardware, kernel
from aisandbox.instance.observe.probes import machine
from aisandbox.instance.places import Places
from tests.support import appliance, nvml
from tests.support.appliance import MANIFEST
from tests.support.nvml import Card, recorded

L4 = Card("NVIDIA L4", 23034, (8, 9))
H100 = Card("NVIDIA H100 80GB HBM3", 81559, (9, 0))
V100 = Card("Tesla V100-SXM2-16GB", 16384, (7, 0))
LOST = Card("NVIDIA L4", 23034, (8, 9), answers={"nvmlDeviceGetHandleByIndex_v2": str(nvml.LOST)})
RELEASE = os.uname().release

Find = Callable[..., Hardware]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = appliance.make(tmp_path / "root", "cuda")
    files.write_json(places.opt / "cache" / "vllm" / "tables.json", {"capability": [7, 5]})
    return places


@pytest.fixture
def find(library: Path, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Looks at a machine whose library gives these answers; without any, at the one of the call before."""
    answers = tmp_path / "answers"
    nvml.install(library, answers, monkeypatch)

    def look(text: str | None = None, flavour: str = "cuda") -> Hardware:
        if text is not None:
            answers.write_text(text, errors="surrogateescape")
        files.write_json(places.release, {"flavour": flavour, "version": "1"})
        return hardware.find(places)

    return look


def like(card: Card, **answers: str) -> Card:
    return Card(card.name, card.mib, card.capability, answers=answers)


def bus(places: Places, *drivers: str, kind: str = "0x030200") -> None:
    """Put GPUs on the PCI bus, where `recorded` has them, each held by that kernel driver or none."""
    for number, driver in enumerate(drivers, 1):
        device = places.root / f"sys/bus/pci/devices/0000:{number:02x}:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text(f"{kind}\n")
        if driver:
            held = places.root / "sys/bus/pci/drivers" / driver
            held.mkdir(parents=True, exist_ok=True)
            (device / "driver").symlink_to(held)


def module(places: Places, loaded: str = "", built: bool = True) -> None:
    """The kernel's modules."""
    folder = places.root / "lib/modules" / RELEASE
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text("updates/dkms/nvidia.ko.xz:\n" if built else "kernel/fs/ext4/ext4.ko.xz:\n")
    if loaded:
        (places.root / "sys/module/nvidia").mkdir(parents=True)
        (places.root / "sys/module/nvidia/version").write_text(f"{loaded}\n")


def reasons(found: Hardware) -> str:
    return "\n".join(problem.reason for problem in found.problems)


def fixes(found: Hardware) -> str:
    return "\n".join(problem.fix for problem in found.problems)


# GPUs that serve, and the processor


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_bf16\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
        (None, True),
    ],
)
def test_whether_the_processor_computes_in_bfloat16(find: Find, places: Places, flags: str | None, has: bool) -> None:
    if flags:
        (places.root / "proc").mkdir(exist_ok=True)
        (places.root / "proc" / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert find(flavour="cpu").bfloat16 is has


def test_every_fact_of_equal_gpus_and_the_one_with_least_memory_counts(find: Find) -> None:
    found = find(recorded(Card(L4.name, L4.mib, L4.capability, reserved_mib=512), L4))
    assert [gpu.name for gpu in found.gpus] == [L4.name, L4.name]
    assert [gpu.memory_gib for gpu in found.gpus] == [22.0, 22.5], "without what the driver keeps"
    assert (found.gpu_memory_gib, found.capability) == (22.0, (8, 9))
    assert (found.driver, found.cuda, found.fault) == ("580.95.05", "13.0", None)
    assert (found.devices, found.problems, found.conditions) == ((), (), ())


@pytest.mark.parametrize("version", ["580.65.06", "620.14", "1000.1"])
def test_a_newer_driver_serves(find: Find, version: str) -> None:
    assert find(recorded(L4, driver=version, cuda=14020)).fault is None


def test_of_gpus_of_different_kinds_those_with_most_memory_together_serve(find: Find) -> None:
    found = find(recorded(H100, L4, L4))
    assert ([gpu.name for gpu in found.gpus], found.devices) == ([H100.name], ("GPU-0",))
    assert "in use: 1 NVIDIA H100 80GB HBM3, idle: 2 NVIDIA L4" in reasons(found)
    assert find(recorded(H100, *[L4] * 4)).devices == ("GPU-1", "GPU-2", "GPU-3", "GPU-4")


def test_what_the_driver_does_not_tell_is_left_out(find: Find) -> None:
    unknown = ("nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetUUID")
    answers = recorded(like(L4, **dict.fromkeys(unknown, str(nvml.FUNCTION_NOT_FOUND))))
    found = find(answers.replace("DriverVersion_v2 - 0", f"DriverVersion_v2 - {nvml.FUNCTION_NOT_FOUND}"))
    assert (found.gpus[0].capability, found.cuda, found.fault) == (None, None, None)
    assert found.gpus[0].memory_gib == 22.5


# GPUs that do not serve, beside others


def test_a_dead_gpu_is_left_out_and_the_other_seven_serve(find: Find, places: Places) -> None:
    bus(places, *["nvidia"] * 8)
    found = find(recorded(*[L4] * 3, LOST, *[L4] * 4))
    assert (len(found.gpus), found.fault) == (7, None)
    assert found.devices == tuple(f"GPU-{index}" for index in (0, 1, 2, 4, 5, 6, 7))
    (problem,) = found.problems
    assert problem.reason == "GPU 3 (0000:04:00.0) has fallen off the bus (GPU is lost), so it is not used"
    assert problem.fix.startswith("sudo reboot.")


def test_a_gpu_that_the_driver_does_not_count_is_found_on_the_bus(find: Find, places: Places) -> None:
    bus(places, "nvidia", "nvidia")
    found = find(recorded(L4))
    assert (len(found.gpus), found.devices) == (1, ())
    assert reasons(found) == "the driver cannot start the GPU at 0000:02:00.0, so it is not used"


def test_a_gpu_that_another_driver_holds(find: Find, places: Places) -> None:
    bus(places, "nvidia", "vfio-pci")
    found = find(recorded(L4))
    assert "vfio-pci holds the GPU at 0000:02:00.0" in reasons(found)
    assert "echo 0000:02:00.0 | sudo tee /sys/bus/pci/drivers/vfio-pci/unbind" in fixes(found)


def test_a_gpu_too_old_for_cuda_is_left_out_beside_a_newer_one(find: Find) -> None:
    found = find(recorded(L4, V100))
    assert (found.fault, found.devices) == (None, ("GPU-0",))
    assert "Tesla V100" in reasons(found) and "7.0" in reasons(found) and "7.5" in reasons(found)


def test_answers_that_make_no_sense_leave_only_that_gpu_out(find: Find) -> None:
    found = find(recorded(L4, like(L4, nvmlDeviceGetName="0 \udcff\udcfe")))
    assert (found.devices, found.fault) == (("GPU-0",), None)
    assert "GPU 1 cannot be used ('utf-8' codec" in reasons(found)


# MIG


def test_a_slice_serves_by_its_own_name_and_size(find: Find) -> None:
    small, large = Card("A100 MIG 1g.5gb", 4864, (8, 0)), Card("A100 MIG 3g.20gb", 19968, (8, 0))
    found = find(recorded(Card("NVIDIA A100-SXM4-40GB", 40960, (8, 0), slices=(small, large))))
    assert [(gpu.name, gpu.memory_gib) for gpu in found.gpus] == [("A100 MIG 3g.20gb", 19.5)]
    assert (found.devices, found.fault) == (("MIG-0-1",), None)
    assert "2 slices (MIG), of which a model can use one; it uses 1 A100 MIG 3g.20gb" in reasons(found)
    assert "sudo nvidia-smi -i 0 -mig 0" in fixes(found)


def test_mig_mode_without_a_slice_leaves_no_gpu(find: Find) -> None:
    mode = {"nvmlDeviceGetMigMode": "0 1 1", "nvmlDeviceGetMaxMigDeviceCount": "0 7"}
    found = find(recorded(like(H100, **mode)))
    assert (found.gpus, found.problems) == ((), ())
    assert "in MIG mode and has no slice" in (found.fault or "")
    assert "sudo nvidia-smi -i 0 -mig 0" in (found.fix or "")
    assert find(recorded(like(H100, **mode), L4)).devices == ("GPU-1",)


# vGPU


def test_a_virtual_gpu_tells_when_it_has_no_licence(find: Find) -> None:
    virtual = {"nvmlDeviceGetVirtualizationMode": "0 2"}
    without = find(recorded(like(L4, **virtual, nvmlDeviceGetGridLicensableFeatures_v4="0 1 0")))
    assert len(without.gpus) == 1
    assert "virtual GPU without a licence" in reasons(without)
    assert "nvidia-gridd" in fixes(without)
    assert not find(recorded(like(L4, **virtual, nvmlDeviceGetGridLicensableFeatures_v4="0 1 1"))).problems
    assert not find(recorded(like(L4, **virtual, nvmlDeviceGetGridLicensableFeatures_v4="0 0 0"))).problems


# Memory that others have


def busy(mib: int, *processes: tuple[int, int]) -> Card:
    return Card(L4.name, L4.mib, L4.capability, used_mib=mib, processes=processes)


def test_memory_of_another_program_is_not_counted_and_only_the_doctor_names_it(find: Find, places: Places) -> None:
    found = find(recorded(busy(10240, (os.getpid(), 10240)), names={os.getpid(): "/usr/bin/blender"}))
    assert (found.gpus[0].memory_gib, found.gpus[0].taken_gib) == (12.5, 10.0)
    assert found.free_share == pytest.approx(0.555, abs=0.01)
    assert "another process has 10.0 GiB of the memory of GPU 0 (NVIDIA L4)" in reasons(found)
    assert "the model is fitted to the rest" in reasons(found)
    assert "sudo aisandbox doctor" in fixes(found)
    planned = resolve(Choice(), (), MANIFEST, found)
    assert "blender" not in repr(planned), "everybody may read the plan, and the progress page shows it"
    said = [finding.text for finding in machine.gpu(instance(places, MANIFEST)) if finding.severity == "warning"]
    assert f"The memory of GPU 0 (NVIDIA L4) is also used by blender (process {os.getpid()})." in said


def test_a_gpu_that_is_taken_is_left_out_when_the_others_have_more_room_without_it(find: Find) -> None:
    found = find(recorded(L4, busy(20480, (os.getpid(), 20480)), L4))
    assert found.devices == ("GPU-0", "GPU-2")
    assert "so it is not used" in reasons(found)


def test_what_the_model_server_has_itself_is_its_own(
    find: Find, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "USER", pwd.getpwuid(os.getuid()).pw_name)
    (places.root / "proc" / str(os.getpid())).mkdir(parents=True)
    found = find(recorded(busy(20480, (os.getpid(), 20480))))
    assert (found.gpus[0].taken_gib, found.problems) == (0, ())


def test_memory_that_no_visible_program_has(find: Find, places: Places) -> None:
    found = find(recorded(busy(10240)))
    assert "another process has 10.0 GiB" in reasons(found)
    files.write_json(places.status("engine"), {"phase": "serve"})
    assert not find().problems, "it may be the model server's own"


def test_little_memory_is_not_worth_a_word(find: Find) -> None:
    assert not find(recorded(busy(200, (os.getpid(), 200)))).problems


# Broken, slow


@pytest.mark.parametrize(
    ("answers", "reason", "fix"),
    [
        ({"nvmlDeviceGetTotalEccErrors": "0 3"}, "3 uncorrectable memory errors: programs on it may crash", "reboot"),
        ({"nvmlDeviceGetRemappedRows": "0 0 1 1 0"}, "damaged memory, which it replaces when it restarts", "reboot"),
        ({"nvmlDeviceGetRetiredPagesPendingStatus": "0 1"}, "damaged memory, which it replaces", "reboot"),
        ({"nvmlDeviceGetRemappedRows": "0 0 9 0 1"}, "no spare memory to replace it", "another machine"),
    ],
)
def test_damaged_memory_is_told_and_the_gpu_serves(find: Find, answers: dict[str, str], reason: str, fix: str) -> None:
    found = find(recorded(like(L4, **answers)))
    assert (len(found.gpus), found.fault) == (1, None)
    assert reason in reasons(found) and fix in fixes(found)


@pytest.mark.parametrize(
    ("answers", "reason", "fix"),
    [
        ({"nvmlDeviceGetCurrentClocksEventReasons": "0 64"}, "because it is hot", "nvidia-smi -i 0"),
        ({"nvmlDeviceGetCurrentClocksEventReasons": "0 32"}, "because it is hot", "nvidia-smi -i 0"),
        ({"nvmlDeviceGetCurrentClocksEventReasons": "0 128"}, "power supply", "provider"),
        ({"nvmlDeviceGetEnforcedPowerLimit": "0 40000"}, "40 W of the 72 W", "sudo nvidia-smi -i 0 -pl 72"),
        ({"nvmlDeviceGetPersistenceMode": "0 0"}, "not in persistence mode", "nvidia-persistenced"),
    ],
)
def test_what_slows_a_gpu_down_is_a_warning_of_the_doctor_only(
    find: Find, places: Places, answers: dict[str, str], reason: str, fix: str
) -> None:
    found = find(recorded(like(L4, **answers)))
    assert (len(found.gpus), found.problems) == (1, ())
    (condition,) = found.conditions
    assert reason in condition.reason and fix in condition.fix
    findings = list(machine.gpu(instance(places, appliance.MANIFEST)))
    assert [finding.severity for finding in findings] == ["ok", "warning"]
    assert reason in findings[1].text


def test_the_doctor_warns_of_lasting_faults(find: Find, places: Places) -> None:
    find(recorded(L4, LOST))
    ok, warning = machine.gpu(instance(places, appliance.MANIFEST))
    assert (ok.severity, ok.text) == ("ok", "NVIDIA L4 (22.5 GiB)")
    assert (warning.severity, warning.text.partition(" (")[0]) == ("warning", "GPU 1 has fallen off the bus")


# No GPU at all


def test_a_driver_too_old_for_cuda_is_a_fault_of_its_own(find: Find) -> None:
    found = find(recorded(L4, driver="535.261.03", cuda=12020))
    assert found.fault == "driver 535.261.03 is too old for CUDA 13: needs 580 or newer"
    assert "nvidia-driver-cuda" in str(found.fix) and "reboot" in str(found.fix)
    assert found.cuda == "12.2"


def test_a_gpu_too_old_for_cuda_is_named(find: Find) -> None:
    found = find(recorded(V100))
    assert "Tesla V100" in str(found.fault) and "7.0" in str(found.fault) and "7.5" in str(found.fault)
    assert found.gpus == ()


def test_a_driver_without_a_gpu(find: Find) -> None:
    found = find(recorded())
    assert "finds no GPU" in str(found.fault)
    assert found.gpus == ()


@pytest.mark.parametrize(
    ("status", "error", "fix"),
    [
        (nvml.LIBRARY_NOT_FOUND, "NVML Shared Library Not Found", "install its driver"),
        (nvml.DRIVER_NOT_LOADED, "Driver Not Loaded", "modprobe nvidia"),
        (nvml.MISMATCH, "RM has detected an NVML/RM version mismatch.", "reboot"),
        (nvml.LOST, "GPU is lost", "nvidia-smi"),
    ],
)
def test_errors_of_the_library_are_told_with_what_helps(find: Find, status: int, error: str, fix: str) -> None:
    found = find(recorded(L4, error=status))
    assert (found.gpus, found.gpu_memory_gib, found.fault) == ((), 0, error)
    assert fix in str(found.fix)


@pytest.mark.parametrize("status", [nvml.LIBRARY_NOT_FOUND, nvml.DRIVER_NOT_LOADED])
def test_without_a_library_the_bus_says_why(find: Find, places: Places, status: int) -> None:
    (places.root / "sys/bus/pci/devices").mkdir(parents=True)
    found = find(recorded(error=status))
    assert "the machine has no NVIDIA GPU" in str(found.fault) and "CPU flavour" in str(found.fix)
    bus(places, "nouveau")
    found = find()
    assert "Nouveau holds the GPU at 0000:01:00.0" in str(found.fault)
    assert "blacklist nouveau" in str(found.fix) and "reboot" in str(found.fix)


def test_a_driver_that_was_not_built_for_this_kernel(find: Find, places: Places) -> None:
    bus(places, "")
    module(places, built=False)
    found = find(recorded(error=nvml.DRIVER_NOT_LOADED))
    assert f"no module for this kernel, {RELEASE}" in str(found.fault)
    assert "dkms autoinstall" in str(found.fix)


def test_a_driver_that_is_built_and_not_loaded(find: Find, places: Places) -> None:
    bus(places, "")
    module(places)
    assert "sudo modprobe nvidia" in str(find(recorded(error=nvml.DRIVER_NOT_LOADED)).fix)


def test_a_driver_that_is_half_installed(find: Find, places: Places) -> None:
    bus(places, "nvidia")
    module(places, loaded="580.95.05")
    found = find(recorded(error=nvml.LIBRARY_NOT_FOUND))
    assert "half installed: its kernel module 580.95.05 is loaded, its library is missing" in str(found.fault)
    assert "apt-get install" in str(found.fix)
    assert "kernel module is 580.95.05" in str(find(recorded(error=nvml.MISMATCH)).fault)


# Device nodes


@pytest.fixture
def nodes(places: Places) -> Path:
    folder = places.root / "dev"
    folder.mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1"):
        (folder / name).touch()
        (folder / name).chmod(0o666)
    (folder / "nvidia-caps").mkdir(0o700)
    return folder


def test_a_gpu_whose_node_the_model_server_may_not_open_is_left_out(find: Find, nodes: Path) -> None:
    assert not find(recorded(L4, L4)).problems
    (nodes / "nvidia0").chmod(0o600)
    found = find()
    assert (found.devices, found.fault) == (("GPU-1",), None)
    assert reasons(found) == "the model server's user, vllm, may not open /dev/nvidia0"
    assert "sudo chmod a+rw" in fixes(found)
    (nodes / "nvidia1").chmod(0o600)
    found = find()
    assert found.fault == "the model server's user, vllm, may not open /dev/nvidia0, /dev/nvidia1"
    assert not found.problems, "one fault is told once"


@pytest.mark.parametrize("name", ["nvidiactl", "nvidia-uvm"])
def test_without_the_common_nodes_no_gpu_can_be_used(find: Find, nodes: Path, name: str) -> None:
    (nodes / name).chmod(0o640)
    found = find(recorded(L4))
    assert found.fault == f"the model server's user, vllm, may not open /dev/{name}"
    denied = find(recorded(error=nvml.NO_PERMISSION))
    assert denied.fault == found.fault


def test_a_nodes_group_may_be_the_model_servers(find: Find, nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "USER", pwd.getpwuid(os.getuid()).pw_name)
    (nodes / "nvidiactl").chmod(0o600)
    assert find(recorded(L4)).fault is None


# Other machines


def test_memory_and_processors_of_the_machine(find: Find) -> None:
    found = find(flavour="cpu")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    assert found.ram_gib == pytest.approx(total, abs=0.1)
    assert found.cpus == len(os.sched_getaffinity(0))


def test_the_cpu_flavour_does_not_look_for_gpus(find: Find) -> None:
    found = find(flavour="cpu")
    assert (found.flavour, found.gpus, found.fault, found.problems) == ("cpu", (), None, ())


def test_the_cpu_flavour_says_that_another_image_would_use_the_gpu(find: Find, places: Places) -> None:
    bus(places, "", kind="0x068000")
    assert not find(flavour="cpu").problems, "an NVSwitch is no GPU"
    (places.root / "sys/bus/pci/devices/0000:01:00.0/class").write_text("0x030000\n")
    found = find(flavour="cpu")
    assert found.fault is None
    assert "which it does not use" in reasons(found) and "CUDA flavour" in fixes(found)


@pytest.mark.parametrize(("limit", "expected"), [("2147483648\n", 2.0), ("max\n", None), (str(2**60), None)])
def test_a_containers_memory_ends_at_its_limit(tmp_path: Path, limit: str, expected: float | None) -> None:
    places = appliance.make(tmp_path / "root")
    file = places.root / "sys" / "fs" / "cgroup" / "memory.max"
    file.parent.mkdir(parents=True)
    before = hardware.find(places).ram_gib
    file.write_text(limit)
    assert hardware.find(places).ram_gib == (expected or before)


def contained(places: Places) -> None:
    (places.opt / "container").mkdir()
    (places.opt / "container" / "programs.json").write_text("{}")


def test_a_container_without_a_gpu_says_how_it_gets_one(find: Find, places: Places) -> None:
    contained(places)
    assert "--gpus all" in (find(recorded(error=nvml.LIBRARY_NOT_FOUND)).fix or "")


def test_a_container_has_only_the_gpus_that_it_was_given_and_its_host_fixes_them(find: Find, places: Places) -> None:
    contained(places)
    bus(places, *["nvidia"] * 8)
    found = find(recorded(like(L4, nvmlDeviceGetTotalEccErrors="0 3")))
    (problem,) = found.problems
    assert problem.fix.startswith("On the host: ")
