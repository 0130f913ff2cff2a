"""Checks of the machine below everything."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.observe import xid
from aisandbox.instance.observe.probes.instance import Instance
from aisandbox.instance.observe.probes.registry import Finding, failed, ok, probe, skipped, warning
from aisandbox.instance.problem import Problem

GIB = 1024**3
LEAST_FREE_BYTES = GIB
TIGHT_SHARE = 0.05
LEAST_INODE_SHARE = 0.02
TIGHT_MEMORY_SHARE = 0.05
LARGER = "Take a plan with more memory, or a smaller model: sudo aisandbox configure --model ORGANISATION/NAME"
SET_CLOCK = "sudo timedatectl set-ntp true && sudo systemctl restart systemd-timesyncd"


@probe("The GPUs that the model server uses")
def gpu(instance: Instance) -> Iterator[Finding]:
    found = instance.hardware
    if found.flavour == "cpu":
        yield skipped("The CPU flavour of the image uses no GPU.")
    elif found.fault and not (found.gpus and _too_old(instance)):
        yield failed("No GPU can be used.", found.fix or "", found.fault)
    else:
        yield ok(", ".join(f"{gpu.name} ({gpu.memory_gib:g} GiB)" for gpu in found.gpus))
    if found.flavour == "cuda":
        for problem in (*found.problems, *found.conditions, *xid.problems(xid.read())):
            yield warning(sentence(problem), problem.fix)


@probe("Whether NVIDIA's driver serves the engine's CUDA")
def driver(instance: Instance) -> Iterator[Finding]:
    found = instance.hardware
    need = f"CUDA {instance.owners.cuda} needs driver {instance.owners.least_driver} or newer"
    if found.flavour == "cpu" or not found.driver:
        yield skipped("No NVIDIA driver is in use.")
    elif _too_old(instance):
        yield failed(f"The NVIDIA driver {found.driver} is too old.", found.fix or "", need)
    else:
        yield ok(f"NVIDIA driver {found.driver}, CUDA {found.cuda}; {need}.")


def sentence(problem: Problem) -> str:
    """The problem's reason, which is a clause, by itself."""
    return f"{problem.reason[:1].upper()}{problem.reason[1:]}."


def _too_old(instance: Instance) -> bool:
    major = (instance.hardware.driver or "").partition(".")[0]
    return major.isdigit() and int(major) < instance.owners.least_driver


@probe("Whether the image is the right one for this machine")
def flavour(instance: Instance) -> Iterator[Finding]:
    release = files.read_json(instance.places.release)
    name = (release or {}).get("flavour")
    if name not in ("cpu", "cuda"):
        text = f"{instance.places.release} does not tell the flavour of the image."
        yield failed(text, "Deploy the image again: this file is part of it.")
    elif name == "cpu" and (unused := instance.hardware.problems):
        yield from (warning(sentence(problem), problem.fix) for problem in unused)
    else:
        yield ok(f"{name}, version {(release or {}).get('version')}")


@probe("Free space of the system's and the data's disk")
def disk(instance: Instance) -> Iterator[Finding]:
    places = {"System disk": instance.places.root, "Data directory": instance.places.data}
    seen = set()
    for name, folder in places.items():
        try:
            device, usage = folder.stat().st_dev, os.statvfs(folder)
        except OSError as error:
            yield failed(f"{name}: {folder} cannot be looked at.", f"See: ls -ld {folder}", str(error.strerror))
            continue
        if device not in seen:
            seen.add(device)
            yield from space(f"{name} ({folder})", usage)


def space(name: str, usage: os.statvfs_result) -> Iterator[Finding]:
    """Findings on bytes and inodes of one file system."""
    total, free = usage.f_blocks * usage.f_frsize, usage.f_bavail * usage.f_frsize
    text = f"{name}: {free / GIB:.1f} of {total / GIB:.1f} GiB are free"
    fix = "Free space (sudo aisandbox models shows what models take), or attach a larger volume."
    if usage.f_flag & os.ST_RDONLY:
        yield failed(f"{name} is read-only.", "See: sudo journalctl -k -p err; then reboot, so that it is checked.")
    elif free < LEAST_FREE_BYTES:
        yield failed(f"{text}.", fix)
    elif free < TIGHT_SHARE * total:
        yield warning(f"{text}.", fix)
    else:
        yield ok(text)
    # File systems without a fixed number of inodes say 0.
    if usage.f_files and usage.f_favail < LEAST_INODE_SHARE * usage.f_files:
        text = f"{name}: {usage.f_favail} of {usage.f_files} inodes are free: hardly a file can be made."
        yield failed(
            text, f"Remove small files. Where they are: sudo du --inodes -x {name.rpartition('(')[2].rstrip(')')}"
        )


@probe("Free memory, and programs that were ended for want of it")
def memory(instance: Instance) -> Iterator[Finding]:
    fields = _fields(instance.places.root / "proc" / "meminfo")
    if not fields:
        yield skipped("The kernel does not tell.")
        return
    total, free = fields["MemTotal"] * 1024, fields["MemAvailable"] * 1024
    text = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are available"
    yield warning(f"Only {text}.", LARGER) if free < TIGHT_MEMORY_SHARE * total else ok(text)
    killed = _fields(instance.places.root / "proc" / "vmstat").get("oom_kill", 0)
    if killed:
        text = f"The kernel has ended {killed} programs since power-on, because memory ran out."
        yield warning(text, f"{LARGER}. Which ones: sudo journalctl -k --grep 'Out of memory'")


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file of the kernel, by name."""
    try:
        rows = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


@probe("Whether the clock is synchronised")
def clock(_: Instance) -> Iterator[Finding]:
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        yield skipped("timedatectl does not answer.")
        return
    if said == "yes":
        yield ok("The clock is synchronised.")
    else:
        text = "The clock is not synchronised. Certificates are refused when it is wrong."
        yield warning(text, SET_CLOCK)


@probe("What cloud-init says of its work")
def cloud_init(instance: Instance) -> Iterator[Finding]:
    folder = instance.places.cloud_run
    result = (files.read_json(folder / "result.json") or {}).get("v1")
    if not isinstance(result, dict):
        running = (folder / "status.json").exists()
        yield skipped("It is not done yet: cloud-init status" if running else "There is no cloud-init here.")
        return
    status = (files.read_json(folder / "status.json") or {}).get("v1") or {}
    minor = status.get("recoverable_errors") if isinstance(status, dict) else None
    for error in result.get("errors") or ():
        yield failed("cloud-init failed.", "cloud-init status --long; sudo less /var/log/cloud-init.log", str(error))
    if minor:
        yield warning("cloud-init complains.", "cloud-init status --long", "; ".join(map(str, minor)))
    if not (result.get("errors") or minor):
        yield ok(f"done, from {result.get('datasource')}")
