"""One client does its worst; the others hardly notice, memory comes back, and nothing is restarted.

Here everybody shares two cores, attackers included. `ATTACK_SECONDS=60` attacks for longer.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aisandbox.builder.machine import Machine
from aisandbox.instance.fit.hardware import computes_in_bfloat16
from aisandbox.manifest import REPOSITORY
from tests.support.attacks import ATTACKS, MODEL
from tests.support.machines import MANIFEST, output, properties, wait_for, wait_until_ready

SECONDS = float(os.environ.get("ATTACK_SECONDS", "8"))
UNITS = ("vllm", "open-webui", "auxiliary", "nginx", "sandbox-api", "aisandbox-status")
USERS = ("vllm", "open-webui", "auxiliary", "www-data")
GROWTH_MIB = 300
"""What may stay of an attack: a model of the auxiliary service, and what Python keeps for the next time."""
CALM_S = 60.0
REFUSED = {
    "huge_bodies": {400, 413},
    "too_many_answers": {400},
    "deep_json": {400},
    "long_names": {400},
}
"""Attacks none of whose requests is let through, with the answers that they get. Connections may be cut, too."""

VISITOR = """
import http.client, json, sys, time
chat, api, model, seconds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "stream": True})
def token():
    connection = http.client.HTTPConnection("127.0.0.1", api, timeout=110)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, (answer.status, answer.read())
    next(line for line in answer if b'"finish_reason":"' in line)  # with the only token
def page():
    connection = http.client.HTTPConnection("127.0.0.1", chat, timeout=110)
    connection.request("GET", "/api/config")
    answer = connection.getresponse()
    assert answer.status == 200 and json.loads(answer.read())
end, times = time.monotonic() + seconds, {"token": [], "page": []}
while time.monotonic() < end or not times["page"]:
    for what in (token, page):
        before = time.monotonic()
        what()
        times[what.__name__].append(round(time.monotonic() - before, 3))
    time.sleep(0.1)
print(json.dumps(times))
"""
"""Another client than the attacker's, on the machine itself: first tokens of the API, and the chat's own server."""


@dataclass(frozen=True)
class State:
    """How the services are. `memory`: MiB by user."""

    restarts: dict[str, str]
    memory: dict[str, int]


def state(machine: Machine) -> State:
    restarts = {unit: properties(machine, unit, "NRestarts", "ActiveState") for unit in UNITS}
    command = "; ".join(
        f"echo {user} $(ps --no-headers -o rss= -u {user} | awk '{{s+=$1}} END {{print s+0}}')" for user in USERS
    )
    rows = [line.split() for line in output(machine, command).splitlines()]
    return State({unit: str(found) for unit, found in restarts.items()}, {user: int(kib) >> 10 for user, kib in rows})


def visit(machine: Machine, seconds: float) -> dict[str, list[float]]:
    """Seconds until first tokens and answers of the chat's server, measured for so long."""
    ports = [str(MANIFEST.ports[name].port) for name in ("chat", "api")]
    command = shlex.join(["python3", "-c", VISITOR, *ports, MODEL, str(seconds)])
    result = machine.run(command, check=False, timeout=seconds + 120)
    assert result.returncode == 0, result.stderr
    times: dict[str, list[float]] = json.loads(result.stdout)
    return times


@pytest.fixture(scope="module")
def quiet(machine: Machine) -> dict[str, float]:
    """What a visitor waits while nobody else is there."""
    wait_until_ready(machine)
    return {what: statistics.median(times) for what, times in visit(machine, 3).items()}


@pytest.fixture(scope="module", autouse=True)
def uploads_go(machine: Machine) -> Iterator[None]:
    yield
    output(machine, "sudo find /var/lib/aisandbox/open-webui/data/uploads -name '*_a.txt' -delete")


@pytest.mark.parametrize("name", ATTACKS)
def test_the_others_hardly_notice(machine: Machine, quiet: dict[str, float], name: str) -> None:
    before = state(machine)
    command = [sys.executable, "-m", "tests.support.attacks", name, machine.address, str(SECONDS)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as attacker:
        assert attacker.stdout and attacker.stdout.readline() == "attacking\n"
        times = visit(machine, SECONDS - 1)
        answers = {int(status): count for status, count in json.loads(attacker.stdout.read()).items()}
    waited = {what: statistics.median(found) for what, found in times.items()}
    print(
        name, "quiet", quiet, "waited", waited, "longest", {what: max(found) for what, found in times.items()}, answers
    )
    allowed = {what: 2 * seconds + 1 for what, seconds in quiet.items()}
    if not computes_in_bfloat16(Path("/")):
        # The engine reads prompts in the order in which they came, here a hundred tokens a second.
        allowed["token"] = 100
    assert {what: seconds for what, seconds in waited.items() if seconds > allowed[what]} == {}, (quiet, times, answers)
    if name in REFUSED:
        assert answers and answers.keys() <= REFUSED[name] | {0}, answers

    def calm() -> bool:
        now = state(machine).memory
        return all(now[user] <= mib + GROWTH_MIB for user, mib in before.memory.items())

    wait_for(f"the memory of {name} to come back", calm, CALM_S)
    assert state(machine).restarts == before.restarts
