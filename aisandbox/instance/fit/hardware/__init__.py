"""What this instance is: the flavour of its image, its memory, and its GPUs with what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.deployment import Gpu, Hardware
from aisandbox.instance.fit import tables
from aisandbox.instance.fit.hardware import faults, kernel, nvml
from aisandbox.instance.fit.hardware.facts import CUDA, GIB, LEAST_DRIVER
from aisandbox.instance.fit.hardware.nvml import Device, Unit
from aisandbox.instance.fit.hardware.selection import Taken, select
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem

__all__ = ["CUDA", "GIB", "LEAST_DRIVER", "Gpu", "Hardware", "find", "ram_gib", "unused_gpu"]

WORTH_TELLING = GIB // 2
"""Memory that other programs may have without a word: vLLM leaves more than that free."""
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names in /proc/cpuinfo: Intel's and AMD's, and last ARM's."""
HOST = "On the host: "


def find(places: Places) -> Hardware:
    """Look at the machine. The CPU flavour cannot use GPUs, so it only looks whether there is one."""
    machine: dict[str, Any] = {"ram_gib": ram_gib(places), "cpus": len(os.sched_getaffinity(0))}
    if (files.read_json(places.release) or {}).get("flavour") == "cpu":
        unused = unused_gpu(places)
        problems = (unused,) if unused else ()
        return Hardware(flavour="cpu", **machine, bfloat16=computes_in_bfloat16(places.root), problems=problems)
    found = Hardware(flavour="cuda", **machine, **_nvidia(places))
    return _for_container(found) if places.container else found


def ram_gib(places: Places) -> float:
    """The machine's memory, or as much of it as a container may use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    groups = places.root / "sys" / "fs" / "cgroup"
    for limit in (groups / "memory.max", groups / "memory" / "memory.limit_in_bytes"):
        try:
            total = min(total, int(limit.read_text()))
        except (OSError, ValueError):
            continue  # there is none, or it says "max"
    return round(total / GIB, 1)


def computes_in_bfloat16(root: Path) -> bool:
    """Whether the processor has instructions for it. Without them each number is converted, before and after."""
    try:
        words = set((root / "proc" / "cpuinfo").read_text().split())
    except OSError:
        return True
    return not words.isdisjoint(BFLOAT16_FLAGS)


def unused_gpu(places: Places) -> Problem | None:
    """What to tell of a GPU that the CPU flavour of the image finds."""
    if not kernel.cards(places.root):
        return None
    reason = "this is the CPU flavour of the image, on a machine with an NVIDIA GPU, which it does not use"
    return Problem(reason=reason, fix="Deploy the CUDA flavour of the image here: it serves models from the GPU.")


def _nvidia(places: Places) -> dict[str, Any]:
    """What library and kernel tell of the GPUs, as fields of `Hardware`."""
    answer = nvml.ask()
    if answer.failure or answer.driver is None:
        return _fault(faults.no_library(answer.failure or nvml.Failure(0, "no driver"), places.root))
    facts = {"driver": answer.driver, "cuda": answer.cuda}
    # A container sees the bus of its host, but has only the GPUs that it was given.
    cards = () if places.container else kernel.cards(places.root)
    devices, uncounted = _matched(answer.devices, cards)
    closed = kernel.closed_nodes(places.root)
    selected = select(devices, closed, tables.read(places).capability, _taken_by(places))
    problems = (*map(faults.not_served, uncounted), *selected.problems)
    found = facts | {
        "gpus": selected.gpus,
        "devices": selected.devices,
        "problems": problems,
        "conditions": (*selected.names, *(problem for device in devices for problem in faults.momentary(device))),
    }
    if old := faults.old_driver(answer.driver):
        return found | _fault(old)
    if shut := [name for name in closed if name in kernel.COMMON_NODES]:
        return found | _fault(faults.closed_nodes(shut))
    if selected.gpus:
        return found
    # What keeps the first from being used is the fault; the others stay problems.
    first = problems[0] if problems else faults.no_gpu(answer.driver)
    return found | {"problems": problems[1:]} | _fault(first)


def _matched(
    devices: tuple[Device, ...], cards: tuple[kernel.Card, ...]
) -> tuple[tuple[Device, ...], tuple[kernel.Card, ...]]:
    """The devices with their addresses, and the cards on the bus that are none of them.

    A GPU that is lost does not tell its address: it is one that is left. Both are in the order of the bus.
    """
    counted = {device.address for device in devices}
    left = iter(card for card in cards if card.address not in counted)
    silent = {device.index: next(left, None) for device in devices if device.failure}
    told = tuple(
        replace(device, address=card.address) if (card := silent.get(device.index)) else device for device in devices
    )
    return told, tuple(left)


def _fault(problem: Problem) -> dict[str, Any]:
    return {"fault": problem.reason, "fix": problem.fix}


def _taken_by(places: Places) -> Callable[[Unit], Taken]:
    """Says what programs other than the model server have of a GPU."""
    engine = (files.read_json(places.status("engine")) or {}).get("phase")

    def taken(unit: Unit) -> Taken:
        # In a container the library gives process ids of the host, or none.
        seen = () if places.container else unit.processes
        others = [process for process in seen if kernel.owner(places.root, process.pid) != kernel.USER]
        if others:
            known = sum(process.bytes or 0 for process in others)
            size = known or (unit.used if len(others) == len(seen) else 0)
            who = " and ".join(f"{Path(process.name).name} (process {process.pid})" for process in others)
        else:
            size = 0 if seen or engine in ("load", "serve") else unit.used
            who = ""
        return Taken(size, who) if size > WORTH_TELLING else Taken()

    return taken


def _for_container(found: Hardware) -> Hardware:
    """The same, with fixes for whoever runs the container: driver and GPUs belong to its host."""

    def on_host(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        return tuple(replace(problem, fix=HOST + problem.fix) for problem in problems)

    fix = found.fix and (faults.GIVE_GPU if not found.driver or not found.gpus else HOST + found.fix)
    return replace(found, fix=fix, problems=on_host(found.problems), conditions=on_host(found.conditions))
