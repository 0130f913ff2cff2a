"""A model's download, verified, against plain parallel HTTP downloads of the same files.

    python -m tests.bench.bench_download [--rounds N] [--files N] [--mib N]

Both get them from the same hub on loopback, to the same disk, in turns, so that other work on the machine slows both.
The plain one is one `curl` for each file, all at once, that checks nothing. Ours resolves every file, follows the
redirects, reckons checksums and lays out the cache; all of that counts. Starting the worker and looking the model up,
which takes the same time for a model of any size, is told apart. Results go to build/bench/download.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx

from aisandbox.instance.fetch.download import Download
from aisandbox.instance.fetch.request import Request

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "build" / "bench" / "download.json"
MODEL = "acme/large"
MIB = 2**20
TARGET = 0.8


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """The hub as a process of its own; its address."""
    command: list[str | Path] = [sys.executable, "-m", "tests.support.hub", "--dir", folder, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().split()[-1]
        # It reads the files once for their checksums, which the real hub knows.
        httpx.get(f"{endpoint}/api/models/{MODEL}/tree/main", timeout=600).raise_for_status()
        yield endpoint
    finally:
        process.kill()
        process.wait()


def plain(endpoint: str, names: list[str], folder: Path) -> float:
    """Seconds of plain downloads, side by side."""
    began = time.monotonic()
    urls = [f"{endpoint}/{MODEL}/resolve/main/{name}" for name in names]
    commands: list[list[str | Path]] = [
        ["curl", "--silent", "--fail", "--location", "--output", folder / name, url]
        for name, url in zip(names, urls, strict=True)
    ]
    processes = [subprocess.Popen(command) for command in commands]
    if any(process.wait() for process in processes):
        raise RuntimeError("curl failed")
    return time.monotonic() - began


def ours(endpoint: str, folder: Path) -> tuple[float, float]:
    """Seconds of our look-up, and of our download."""
    began = time.monotonic()
    with Download(Request(MODEL, endpoint=endpoint), folder / "hub") as download:
        download.look_up()
        found = time.monotonic()
        for _ in download.fetch():
            pass
        return found - began, time.monotonic() - found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--mib", type=int, default=256, help="size of each file")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "look_up": []}
    with tempfile.TemporaryDirectory(prefix="bench-download-", dir=os.environ.get("TMPDIR", "/var/tmp")) as temporary:
        folder = Path(temporary) / "hub" / MODEL
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        names = [f"model-{number}.safetensors" for number in range(arguments.files)]
        for name in names:
            with (folder / name).open("wb") as file:
                for _ in range(arguments.mib):
                    file.write(os.urandom(MIB))
        with hub(Path(temporary) / "hub") as endpoint:
            for number in range(arguments.rounds):
                for kind in ("plain", "ours"):
                    target = Path(temporary) / "got"
                    target.mkdir()
                    if kind == "plain":
                        seconds["plain"].append(plain(endpoint, names, target))
                    else:
                        looked, took = ours(endpoint, target)
                        seconds["ours"].append(took)
                        seconds["look_up"].append(looked)
                    shutil.rmtree(target)
                    os.sync()
                print(f"round {number + 1}/{arguments.rounds}", {k: round(v[-1], 2) for k, v in seconds.items()})
    size = arguments.files * arguments.mib
    ratio = median(plain_s / ours_s for plain_s, ours_s in zip(seconds["plain"], seconds["ours"], strict=True))
    print(f"look-up {median(seconds['look_up']):6.2f} s")
    for kind, taken in list(seconds.items())[:2]:
        print(f"{kind:<6} {median(taken):7.2f} s  {size / median(taken):8.0f} MiB/s")
    print(f"target: {TARGET} x plain; reached: {ratio:.2f}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"mib": size, "seconds": seconds, "ratio": ratio, "target": TARGET}, indent=1) + "\n")


if __name__ == "__main__":
    main()
