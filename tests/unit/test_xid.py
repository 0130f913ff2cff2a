"""Errors that NVIDIA's driver writes to the kernel's log, in the words of real machines."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from aisandbox.instance import files
from aisandbox.instance.commands.doctor import instance as examined
from aisandbox.instance.fit.hardware import Hardware
from aisandbox.instance.observe import journal, xid
from aisandbox.instance.observe.probes import machine
from aisandbox.instance.observe.status import compose
from aisandbox.instance.observe.xid import Errors
from tests.support import appliance
from tests.support.appliance import MANIFEST
from tests.support.programs import fake

NOW = 1_780_000_000.0
ASKED = {13, 31, 43, 45, 48, 61, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120, 140}


def entry(message: str, at: float = NOW) -> dict[str, str]:
    return {"MESSAGE": message, "__REALTIME_TIMESTAMP": str(int(at * 1e6))}


def told(*messages: str, at: float = NOW) -> list[tuple[str, str]]:
    """Reason and fix of each problem that these lines are."""
    errors = Errors()
    for message in messages:
        errors.add(entry(message, at))
    return [(problem.reason, problem.fix) for problem in xid.problems(errors.all, NOW)]


@pytest.mark.parametrize(
    ("message", "reason", "fix"),
    [
        (
            "NVRM: Xid (PCI:0000:cb:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception on "
            "(GPC 7, TPC 7, SM 0): Illegal Instruction Parameter",
            "the GPU at 0000:cb:00 stopped a program that computed something impossible (graphics engine exception) "
            "(Xid 13)",
            "systemctl restart vllm",
        ),
        (
            "NVRM: Xid (PCI:0000:01:00): 31, Ch 00000003, engmask 00000101, intr 10000000",
            "(MMU fault) (Xid 31)",
            "systemctl restart vllm",
        ),
        (
            "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping, reset gpu to "
            "activate.",
            "the GPU at 0000:10:1c replaces damaged memory",
            "sudo reboot",
        ),
        (
            "NVRM: Xid (PCI:0000:2b:00): 79, GPU has fallen off the bus.",
            "the GPU at 0000:2b:00 has fallen off the bus (Xid 79)",
            "sudo reboot",
        ),
        (
            "NVRM: GPU 0000:2b:00.0: GPU has fallen off the bus.",
            "the GPU at 0000:2b:00 has fallen off the bus (Xid 79)",
            "deploy on another machine",
        ),
        (
            "NVRM: Xid (PCI:0000:9b:00): 94, pid=1234, name=python3, Contained ECC error",
            "ended one program only",
            "systemctl restart vllm",
        ),
        (
            "NVRM: Xid (PCI:0000:5e:00): 119, pid=2559, name=nvidia-smi, Timeout after 6s of waiting for RPC response "
            "from GPU1 GSP! Expected function 76 (GSP_RM_CONTROL) (0x20801702 0x4).",
            "(GSP timeout) (Xid 119)",
            "sudo reboot",
        ),
        (
            "NVRM: Xid (PCI:0019:01:00): 149, NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x00000000 0x00000000 0x00000000)",
            "the GPU at 0019:01:00 has an error on its links",
            "nvidia-smi nvlink --status",
        ),
        (
            "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 28 LTSSM Fault Up",
            "the NVSwitch at 0000:c1:00 reported a fatal error (SXid 20034)",
            "sudo reboot",
        ),
        (
            "NVRM: Xid (0000:03:00): 14, Channel 00000001",
            "the GPU at 0000:03:00 reported an error (Xid 14)",
            "https://docs.nvidia.com/deploy/xid-errors/",
        ),
    ],
)
def test_an_error_is_told_with_its_fix(message: str, reason: str, fix: str) -> None:
    ((said, helps),) = told(message)
    assert reason in said
    assert fix in helps


@pytest.mark.parametrize(
    "message",
    [
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.126.09  Release Build",
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 22013, Non-fatal, Link 28 Minion Link NA interrupt",
        "sandbox: NVRM Xid",
        "",
    ],
)
def test_other_lines_are_no_errors(message: str) -> None:
    assert not told(message)
    errors = Errors()
    errors.add({"MESSAGE": None})
    errors.add({"MESSAGE": [1, 2]})
    assert not errors.all


def test_every_documented_error_has_its_meaning() -> None:
    assert set(xid.ERRORS) >= ASKED


def test_an_error_that_comes_again_is_told_once() -> None:
    line = "NVRM: Xid (PCI:0000:9b:00): 48, pid=77, name=python3, DBE (double bit error) at partition 3, subpartition 0"
    ((reason, _),) = told(*[line] * 900)
    assert reason.endswith("(Xid 48, 900 times since power-on)")
    assert len(told(*(line.replace("9b", f"{bus:02x}").replace("48", str(bus)) for bus in range(200)))) == xid.MOST


def test_what_follows_another_error_is_not_told() -> None:
    """From a machine of eight GPUs with a broken link."""
    end = "NVRM: Xid (PCI:0000:{}:00): 45, pid=1818990, name=python3, Ch 00000001 caused by previous Xid 149"
    cause = "NVRM: Xid (PCI:0000:dc:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 00 (0x025001c6 0x00000000)"
    assert ["Xid 149" in reason for reason, _ in told(end.format("dc"), cause)] == [True]
    assert ["Xid 45" in reason for reason, _ in told(end.format("ed"), cause)] == [True, False]


def test_a_programs_error_is_forgotten_and_a_broken_gpu_is_not() -> None:
    program = "NVRM: Xid (PCI:0000:3b:00): 31, pid=9, name=python3, Ch 00000010, intr 00000000. MMU Fault"
    broken = "NVRM: Xid (PCI:0000:3b:00): 95, pid='<unknown>', name=<unknown>, Uncontained: LTC TAG (0x2,0x0). RST: Yes"
    (reason,) = (reason for reason, _ in told(program, broken, at=NOW - xid.PASSING_S - 1))
    assert "Xid 95" in reason


def test_no_program_is_named() -> None:
    ((reason, fix),) = told("NVRM: Xid (PCI:0000:3b:00): 31, pid=4711, name=my-secret-job, Ch 00000010")
    assert not {"4711", "my-secret-job"} & set(f"{reason} {fix}".replace(",", " ").split())


BUS = json.dumps(entry("NVRM: Xid (PCI:0000:2b:00): 79, pid=1, name=x, GPU has fallen off the bus."))


def test_the_doctor_reads_the_kernels_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "journalctl", f"echo not json\ncat <<'E'\n{BUS}\nE")
    instance = dataclasses.replace(examined(appliance.make(tmp_path / "root", "cuda"), MANIFEST), root=True)
    object.__setattr__(instance, "hardware", Hardware(flavour="cuda"))
    (finding,) = (found for found in machine.gpu(instance) if found.severity == "warning")
    assert finding.text == "The GPU at 0000:2b:00 has fallen off the bus (Xid 79)."


def test_the_state_tells_what_the_publisher_has_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "journalctl", f"cat <<'E'\n{BUS}\nE")
    monkeypatch.setattr(journal, "RETRY_S", 3600)  # the next one would be the real journalctl
    places = appliance.make(tmp_path / "root", "cuda")
    assert not list(journal.kernel_errors(places))
    followed = journal.KernelErrors(places)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not list(journal.kernel_errors(places)):
        followed.keep()
        time.sleep(0.02)
    (problem,) = compose(places, MANIFEST, public=True).problems
    assert "0000:2b:00 has fallen off the bus" in problem.reason
    assert "sudo reboot" in problem.fix
    files.write_json(places.status(journal.XID), {"errors": [{"code": "x"}]})
    assert not list(journal.kernel_errors(places))
