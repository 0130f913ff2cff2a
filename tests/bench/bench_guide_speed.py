"""How fast the embedded guide writes: through the API of a booted machine, beside the same model held by transformers.

    python -m tests.bench.bench_guide_speed [--rounds N]

One answer at a time, of 200 tokens; the machine is off while transformers writes. Results go to
build/bench/guide_speed.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

import httpx
import openai

from aisandbox import manifest
from aisandbox.builder.bake import bake
from aisandbox.builder.machine import Machine
from aisandbox.builder.progress import Phases
from tests.bench.bench_engine_start import baked_model
from tests.support import teaching
from tests.support.machines import url

RESULTS = manifest.REPOSITORY / "build" / "bench" / "guide_speed.json"
GIVE_UP_SECONDS = 300.0
TOKENS = 200
TARGET = 20.0
"""Tokens a second on two cores."""


def served(base: str, rounds: int) -> list[float]:
    """Tokens a second after the first one."""
    found = []
    with openai.OpenAI(base_url=base, api_key="none", timeout=300) as client:
        for _ in range(rounds + 1):
            stream = client.completions.create(
                model=manifest.load().embedded_model.id,
                prompt="Once upon a time",
                max_tokens=TOKENS,
                stream=True,
                temperature=0,
                extra_body={"ignore_eos": True},
            )
            times = [time.monotonic() for event in stream if event.choices]
            found.append((len(times) - 1) / (times[-1] - times[0]))
    return found[1:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_guide_speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with Phases() as phases:
        image = bake("cpu", phases)
    machine = Machine("bench")
    machine.remove()
    machine.start(image)
    try:
        machine.instance()
        _wait(url(machine, "api", "/ready"))
        ours = served(url(machine, "api", "/v1"), options.rounds)
    finally:
        machine.remove()
    model = baked_model(image)
    plain = json.loads(teaching.run("tests.bench.guide_plain", str(model), str(TOKENS), str(options.rounds)))
    result = {"served": median(ours), "transformers": median(plain), "rounds": {"served": ours, "transformers": plain}}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"tokens a second: {result['served']:.1f} through the API (target {TARGET}), {result['transformers']:.1f} plain"
    )
    return 0 if result["served"] >= TARGET else 1


def _wait(address: str) -> None:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1)
    raise TimeoutError(f"{address} does not answer after {GIVE_UP_SECONDS:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
