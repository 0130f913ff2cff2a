"""What the machine keeps to itself: visitors run no code on it, and its services call nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from aisandbox.builder.machine import Machine
from tests.support.machines import MANIFEST, Visitor, output, wait_until_ready

MARKER = "/var/lib/aisandbox/open-webui/visitor-was-here"
CODE = f"import pathlib\npathlib.Path({MARKER!r}).touch()\n"
PLUGIN = {"id": "x", "name": "x", "content": f"{CODE}class Pipe:\n    pass\n", "meta": {"description": "x"}}

WATCH = """
table inet watch {
    counter calls {}
    chain output {
        type filter hook output priority -300;
        meta skuid { vllm, open-webui } ip daddr != 127.0.0.1 counter name calls
        meta skuid { vllm, open-webui } ip6 daddr != ::1 counter name calls
    }
}
"""
"""Counts packets of the services that go anywhere else than to the machine's servers: 127.0.0.53, where names are
resolved, counts too."""


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/api/v1/functions/create", PLUGIN),
        ("/api/v1/tools/create", PLUGIN),
        ("/api/v1/utils/code/execute", {"code": CODE}),
        ("/api/v1/pipelines/upload", {"urlIdx": 0}),
        ("/api/v1/configs/import", {"config": {"code_execution": {"engine": "jupyter"}}}),
    ],
)
def test_a_visitor_runs_no_code_on_the_machine(machine: Machine, path: str, form: dict[str, object]) -> None:
    response = Visitor(machine).post(path, form)
    assert response.status_code in (401, 403), response.text
    assert machine.run(f"sudo test -e {MARKER}", check=False).returncode == 1


@pytest.fixture
def watched(machine: Machine) -> Iterator[Machine]:
    """The machine with its services' calls counted."""
    output(machine, f"printf %s '{WATCH}' | sudo nft --file -")
    yield machine
    output(machine, "sudo nft delete table inet watch")


def calls(machine: Machine) -> int:
    listing = json.loads(output(machine, "sudo nft --json list counters table inet watch"))
    return int(next(entry["counter"]["packets"] for entry in listing["nftables"] if "counter" in entry))


def test_the_services_call_nobody(watched: Machine) -> None:
    output(watched, "sudo systemctl restart aisandbox-model vllm open-webui")
    wait_until_ready(watched)
    assert Visitor(watched).ask(MANIFEST.embedded_model.id, "Hello")
    assert calls(watched) == 0


@pytest.mark.parametrize("target", ["http://192.0.2.1/", "http://name.invalid/"])
def test_the_counter_counts(watched: Machine, target: str) -> None:
    """Else the test above would show nothing."""
    watched.run(f"sudo --user=open-webui curl --silent --max-time 1 {target}", check=False)
    assert calls(watched) > 0
