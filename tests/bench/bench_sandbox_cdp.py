"""What our entry adds to DevTools: `Runtime.evaluate` and a 10 MB message, directly and through it, taking turns.

    python -m tests.bench.bench_sandbox_cdp

Starts a desktop with its browser and the server on this machine. `busy` is the machine's load while it ran, per
processor. Results go to build/bench/sandbox_cdp.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support.sandbox import running

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "build" / "bench" / "sandbox_cdp.json"
TARGET_MS = 0.3
ROUNDS = 8
CALLS = 250
BIG = 10 * 2**20
BIG_CALLS = 3
WARM_UP = 50


class Page:
    """One page's DevTools over one connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    async def evaluate(self, expression: str) -> tuple[float, Any]:
        """Milliseconds, and the value."""
        self._number += 1
        parameters = {"expression": expression, "returnByValue": True}
        message = json.dumps({"id": self._number, "method": "Runtime.evaluate", "params": parameters})
        start = time.perf_counter()
        await self._connection.send(message)
        answer = await self._connection.recv()
        spent = (time.perf_counter() - start) * 1000
        return spent, json.loads(answer)["result"]["result"]["value"]


async def measure(pages: dict[str, Page]) -> dict[str, Any]:
    small: dict[str, list[float]] = {name: [] for name in pages}
    down: dict[str, list[float]] = {name: [] for name in pages}
    up: dict[str, list[float]] = {name: [] for name in pages}
    for page in pages.values():
        for _ in range(WARM_UP):
            await page.evaluate("1 + 1")
    for turn in range(ROUNDS):
        for name in sorted(pages, reverse=turn % 2 == 1):
            small[name] += [(await pages[name].evaluate("1 + 1"))[0] for _ in range(CALLS)]
    for turn in range(BIG_CALLS):
        for name in sorted(pages, reverse=turn % 2 == 1):
            spent, value = await pages[name].evaluate(f"'x'.repeat({BIG})")
            assert len(value) == BIG
            down[name].append(spent)
            spent, length = await pages[name].evaluate(f"'{'y' * BIG}'.length")
            assert length == BIG
            up[name].append(spent)
    cases = {
        name: {
            "p50_ms": round(median(small[name]), 3),
            "p95_ms": round(quantiles(small[name], n=20)[-1], 3),
            "10_mb_from_browser_ms": round(median(down[name]), 1),
            "10_mb_to_browser_ms": round(median(up[name]), 1),
        }
        for name in pages
    }
    added = round(cases["entry"]["p50_ms"] - cases["direct"]["p50_ms"], 3)
    return {**cases, "added_p50_ms": added, "target_ms": TARGET_MS, "met": added <= TARGET_MS}


async def run(direct: str, entry: str) -> dict[str, Any]:
    options: dict[str, Any] = {"max_size": None, "compression": None}
    async with connect(direct, **options) as first, connect(entry, **options) as second:
        return await measure({"direct": Page(first), "entry": Page(second)})


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-cdp-") as folder, running(Path(folder), "desktop") as started:
        while (answer := started.client.put("/cdp/json/new?about:blank")).status_code != 200:
            time.sleep(0.1)
        entry = answer.json()["webSocketDebuggerUrl"]
        path = entry.partition("/cdp")[2]
        direct = started.variables["SANDBOX_CDP_URL"].replace("http", "ws", 1) + path
        results = asyncio.run(run(direct, entry))
    results["busy"] = round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
