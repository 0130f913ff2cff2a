"""How long a document of 100 pages takes from its upload to an answer, on a booted machine.

    python -m tests.bench.bench_documents [--rounds N]

The first round loads the embedding model, as the first document of an instance does. Results go to
build/bench/documents.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

import httpx

from aisandbox import manifest
from aisandbox.builder.bake import bake
from aisandbox.builder.machine import Machine
from aisandbox.builder.progress import Phases
from tests.support import machines
from tests.support.documents import minutes
from tests.support.machines import MANIFEST, url
from tests.support.office import SENTENCE

RESULTS = manifest.REPOSITORY / "build" / "bench" / "documents.json"
PAGES = 100
TARGET = 60.0
"""Seconds from the upload to the answer, on two cores."""
QUESTION = "What is the lighthouse keeper of Kappel called?"


def asked(chat: httpx.Client) -> dict[str, float]:
    """Seconds until the document can be searched, and from then until the answer."""
    begin = time.monotonic()
    document = {"file": ("minutes.pdf", minutes(PAGES, SENTENCE))}
    uploaded = chat.post("/api/v1/files/", files=document, params={"process_in_background": "false"})
    uploaded.raise_for_status()
    searchable = time.monotonic()
    files = [{"type": "file", "id": uploaded.json()["id"]}]
    form = {"model": MANIFEST.embedded_model.id, "messages": [{"role": "user", "content": QUESTION}], "files": files}
    answer = chat.post("/api/chat/completions", json=form)
    answer.raise_for_status()
    said = answer.json()["choices"][0]["message"]["content"]
    if "Ottilie" not in said:
        raise RuntimeError(f"the answer is wrong: {said}")
    return {"searchable": searchable - begin, "answered": time.monotonic() - begin}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_documents", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with Phases() as phases:
        image = bake("cpu", phases)
    with machines.booted("bench", image) as machine:
        rounds = measured(machine, options.rounds)
    result = {"first": rounds[0], "later": {key: median(entry[key] for entry in rounds[1:]) for key in rounds[0]}}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({**result, "rounds": rounds}, indent=2) + "\n")
    for name, entry in result.items():
        print(f"{name}: searchable after {entry['searchable']:.1f} s, answered after {entry['answered']:.1f} s")
    return 0 if result["first"]["answered"] <= TARGET else 1


def measured(machine: Machine, rounds: int) -> list[dict[str, float]]:
    with httpx.Client(base_url=url(machine, "chat"), timeout=300) as chat:
        session = chat.post("/api/v1/auths/signin", json={"email": "", "password": ""}).json()
        chat.headers["Authorization"] = f"Bearer {session['token']}"
        return [asked(chat) for _ in range(rounds + 1)]


if __name__ == "__main__":
    sys.exit(main())
