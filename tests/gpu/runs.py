"""The runs of the kit: each starts vLLM in one way and measures it up to the first token, and what it writes then."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import openai

from aisandbox.instance.fit.hardware import GIB
from aisandbox.instance.last_words import describe
from aisandbox.instance.serve.engine_watch import is_healthy
from tests.bench.starts import ENGINE, LOOK_SECONDS, SERVED_NAME, Machine, free_port
from tests.gpu import logs, speed
from tests.gpu.figures import STREAMS, Figures, Unfinished
from tests.gpu.smi import Sampler

PLAIN = {
    "cuda": ("-m", "vllm.entrypoints.cli.main", "serve"),
    # Its command line wants a distribution of the name vllm.
    "cpu": ("-m", "vllm.entrypoints.openai.api_server", "--model"),
}
"""`vllm serve`, by flavour; the model comes next."""
PRELOAD = ("-m", "vllm.entrypoints.cli.main", "preload", "--model")
TOKENS = {"cuda": 128, "cpu": 16}
RUN_SECONDS = 180.0
FEW = (1, 8)
LOADERS = {
    "fastsafetensors": "fastsafetensors",
    "instanttensor": "instanttensor",
    "runai_streamer": "runai_model_streamer",
}
"""vLLM's load formats beside its own reader, and the module that each needs."""
SPECULATION = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
OFFLOAD_GIB = 4
FOR_SERVERS = {"--enable-auto-tool-choice": 0, "--tool-call-parser": 1}
"""Arguments that only a server takes, with the number of their values."""


class Timer:
    """The time that the kit may take, in seconds."""

    def __init__(self, seconds: float) -> None:
        self.began = time.monotonic()
        self.end = self.began + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def deadline(self, seconds: float) -> float:
        """When something ends that may take so long."""
        return min(self.end, time.monotonic() + seconds)


@dataclass(frozen=True)
class Bench:
    """What all runs share. Each has a folder of its own below `folder`, with its log."""

    python: Path
    flavour: str
    model: Path
    args: tuple[str, ...]
    """vLLM's arguments, as the product chooses them for this model and machine; every run has the same."""
    baked: Path
    folder: Path
    scratch: Path
    timer: Timer

    def plain(self, name: str, caches: str, extra: tuple[str, ...] = (), streams: tuple[int, ...] = ()) -> Figures:
        """`vllm serve`."""
        return self._plain(self._machine(name, caches), extra, streams)

    def _plain(self, machine: Machine, extra: tuple[str, ...], streams: tuple[int, ...]) -> Figures:
        address = ("--host", "127.0.0.1", "--port", str(machine.port), "--served-model-name", SERVED_NAME)
        self._forget_weights()
        with Sampler(self.flavour == "cuda") as sampler:
            began = time.monotonic()
            with machine.process(*PLAIN[self.flavour], str(self.model), *address, *self.args, *extra) as process:
                return self._figures(machine, process, began, streams, sampler)

    def engine(self, name: str, caches: str, streams: tuple[int, ...] = ()) -> Figures:
        """The product's engine: it imports, then is told what to serve, and forks vLLM's core."""
        machine = self._machine(name, caches)
        self._forget_weights()
        with Sampler(self.flavour == "cuda") as sampler:
            began = time.monotonic()
            with machine.process(*ENGINE) as process:
                machine.wait_for_phase("wait", process)
                told = time.monotonic()
                machine.write_config(*self.args)
                figures = self._figures(machine, process, began, streams, sampler)
                status = json.loads((machine.run / "status" / "engine.json").read_bytes())
                if status["mode"] != "fast":
                    raise Unfinished(figures, f"not the fast start: {status['message']}")
                after = figures.first_token_s - (told - began)
                return replace(figures, note=f"{after:.1f} s after it was told what to serve; it had imported by then")

    def preload(self, name: str, caches: str) -> Figures:
        """`vllm serve` with the weights held on the GPU by `vllm preload`, as after a restart."""
        holder, machine = self._machine(f"{name} (holder)", caches), self._machine(name, caches)
        port, sockets = free_port(), self.scratch / "sockets"
        sockets.mkdir(mode=0o700)
        health = ("--weight-cache-health-host", "127.0.0.1", "--weight-cache-health-port", str(port))
        place = ("--weight-cache-socket-dir", str(sockets))
        with holder.process(*PRELOAD, str(self.model), *without_servers(self.args), *place, *health) as process:
            while not is_healthy(port):
                holder.check(process)
                time.sleep(LOOK_SECONDS)
            # Without fallback: a restart that reads from the disk would prove nothing.
            settings = json.dumps({"socket_dir": str(sockets), "fallback": False})
            extra = ("--load-format", "ipc_cache", "--model-loader-extra-config", settings)
            return self._plain(machine, extra, ())

    def _machine(self, name: str, caches: str) -> Machine:
        folder = self.folder / re.sub(r"\W+", "-", name).strip("-")
        folder.mkdir(parents=True)
        deadline = self.timer.deadline(RUN_SECONDS)
        return Machine(self.python, self.model, self.baked, folder, self.scratch / caches, deadline)

    def _figures(
        self,
        machine: Machine,
        process: subprocess.Popen[str],
        began: float,
        streams: tuple[int, ...],
        sampler: Sampler,
    ) -> Figures:
        machine.wait_for_token(process)
        token = time.monotonic()
        said = logs.read(line for _, line in machine.lines)
        figures = Figures(
            first_token_s=token - began,
            phases=logs.phases(machine.lines, began, token),
            said=said,
            weights_gib_s=weight_bytes(self.model) / GIB / said.loading_s if said.loading_s else None,
        )
        rates: dict[int, float] = {}
        failure = ""
        for count in streams:
            left = machine.deadline - time.monotonic()
            try:
                rates[count] = speed.measure(machine.url, SERVED_NAME, count, TOKENS[self.flavour], left)
            except (openai.OpenAIError, TimeoutError) as error:
                failure = describe(error)
                break
        figures = replace(figures, tokens_s=rates, memory_gib=sampler.memory_gib, watts=sampler.watts)
        if failure:
            raise Unfinished(figures, failure)
        return figures

    def _forget_weights(self) -> None:
        """Have the kernel drop what it keeps of the weight files, so that every run reads from the disk."""
        for file in self.model.glob("*.safetensors"):
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def weight_bytes(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def without_servers(args: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments that an engine without a server takes, too."""
    kept, skip = [], 0
    for word in args:
        if skip:
            skip -= 1
        elif word in FOR_SERVERS:
            skip = FOR_SERVERS[word]
        else:
            kept.append(word)
    return tuple(kept)


@dataclass(frozen=True)
class Planned:
    """One run; `why_not` is set where this machine or vLLM cannot have it."""

    name: str
    measure: Callable[[], Figures]
    why_not: str = ""


def planned(bench: Bench) -> Iterator[Planned]:
    """All runs, what matters most first."""
    no_gpu = "" if bench.flavour == "cuda" else "needs a GPU"
    no_preload = "" if find_spec("vllm.entrypoints.cli.preload") else "this vLLM has no `vllm preload`"

    def plain(name: str, *extra: str, streams: tuple[int, ...] = (), why_not: str = "") -> Planned:
        return Planned(name, partial(bench.plain, name, "plain", extra, streams), why_not)

    yield plain("plain, first", streams=STREAMS)
    yield Planned("engine, first", partial(bench.engine, "engine, first", "engine", STREAMS))
    yield plain("plain, again", streams=FEW)
    yield Planned("engine, again", partial(bench.engine, "engine, again", "engine"))
    yield Planned("preload, restart", partial(bench.preload, "preload, restart", "plain"), no_gpu or no_preload)
    yield plain("n-gram speculation", "--speculative-config", json.dumps(SPECULATION), streams=FEW)
    yield plain("KV offload", "--kv-offloading-size", str(OFFLOAD_GIB), streams=FEW, why_not=no_gpu)
    # Without compiled graphs, which change nothing about loading.
    yield plain("load: safetensors", "--enforce-eager")
    for loader, module in LOADERS.items():
        why_not = no_gpu or missing(module)
        yield plain(f"load: {loader}", "--load-format", loader, "--enforce-eager", why_not=why_not)


def missing(module: str) -> str:
    """Why the module cannot be imported; empty when it can. In a process of its own: some of them start CUDA."""
    tried = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=60)
    return (tried.stderr.strip().splitlines() or [f"import {module} failed"])[-1] if tried.returncode else ""
