"""Boots a machine and waits until a person can chat."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import urlsplit

from aisandbox import manifest
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import Machine
from aisandbox.builder.progress import Phases
from aisandbox.builder.remote import Remote
from aisandbox.instance.http_probe import Answer, ask

INSTANCE = manifest.REPOSITORY / "build" / "instance.json"
READY_SECONDS = 30
"""What a first boot is expected to take on two cores; for the progress bar."""
TIMEOUT_S = 2.0
LONGEST_ANSWER = 1 << 20
LAST_WORDS = 8
"""Lines of the console that say why a machine stopped."""
NOISE = "Attempted to remove disk file system"
"""systemd-nspawn says so at every end where /run is on a disk: it cannot remove a folder of its own."""


def boot(
    machine: Machine, image: Layer, user_data: str | None, phases: Phases, timeout: float, *, narrowed: bool = True
) -> Machine:
    """Start the machine unless it already runs this image, and wait until chat and API answer.

    Args:
        narrowed: it answers to this host alone, and so its chat has everything; user-data may open it.

    Raises:
        BuildError: it stopped while booting, or was not ready within `timeout` seconds.
    """
    if machine.running and machine.facts["image"] != image.id:
        phases.note("boot", "the running machine is from another image; stopping it (its data stays)")
        machine.stop()
    elif machine.running and user_data is not None and not machine.has_choice(user_data, narrowed):
        phases.note("boot", "the running machine has another user-data; stopping it (its data stays)")
        machine.stop()
    if machine.running:
        phases.note("boot", "the machine is already running")
    machine.start(image, user_data, narrowed=narrowed)
    state = Watch(machine)
    with phases.phase("boot until you can chat", READY_SECONDS, state.detail):
        deadline = time.monotonic() + timeout
        while not state.ready():
            if not machine.running:
                raise BuildError(f"the machine stopped while booting: {_tail(machine)}", f"less {machine.console}")
            if time.monotonic() > deadline:
                raise BuildError(f"not ready after {timeout:.0f} s: {state.detail()}", "make status; make logs")
            time.sleep(0.3)
    return machine


def publish(machine: Machine) -> None:
    """Write the machine's addresses to build/instance.json, for scripts."""
    INSTANCE.write_text(json.dumps(machine.instance(), indent=2) + "\n")


class Watch:
    """Follows a booting machine from outside, the way its user does."""

    def __init__(self, machine: Remote) -> None:
        self._instance = machine.instance()
        self._detail = "power on"

    def detail(self) -> str:
        return self._detail

    def ready(self) -> bool:
        """True once the chat page is up and the API has a model to answer with; asks for nothing that wants a key."""
        status = _get(f"{self._instance['chat_url']}/aisandbox/status.json")
        if status:
            self._detail = str(status.get("message") or status.get("phase") or "starting")
        # The flag is what pages wait for; it follows the services' own answers a moment later.
        api, chat = self._instance["api_url"].removesuffix("/v1"), self._instance["chat_url"]
        return all(map(_answers, (f"{api}/ready", f"{chat}/health", f"{chat}/aisandbox/ready")))


def _ask(url: str, most: int = 0) -> Answer:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return ask(parts.port, parts.path, TIMEOUT_S, host=parts.hostname, most=most)


def _answers(url: str) -> bool:
    return _ask(url).ok


def _get(url: str) -> dict[str, Any] | None:
    answer = _ask(url, LONGEST_ANSWER)
    try:
        content = json.loads(answer.content) if answer.ok else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _tail(machine: Machine) -> str:
    lines = [line for line in machine.console.read_text(errors="replace").splitlines() if NOISE not in line]
    return "\n".join(lines[-LAST_WORDS:]) or "no output"


def summary(machine: Machine) -> str:
    """Addresses for a person."""
    instance = machine.instance()
    # An API that asks for its key does not tell strangers what it serves.
    models = _get(f"{instance['api_url']}/models") or {}
    served = ", ".join(model["id"] for model in models.get("data", []))
    ssh = " ".join(machine.ssh_command())
    sandbox = manifest.load().ports["sandbox"].port
    # Why another model is served than the one asked for, and whatever else is not as it was wanted.
    problems = (_get(f"{instance['chat_url']}/aisandbox/status.json") or {}).get("problems", [])
    return "\n".join(
        (
            "",
            f"  Chat    {instance['chat_url']}",
            f"  API     {instance['api_url']}" + (f"   (model: {served})" if served else ""),
            f"  SSH     make ssh   ({ssh})",
            f"  Sandbox http://localhost:{sandbox}   while `make tunnel` runs",
            "",
            "  All of it answers to this computer alone, unless your user-data says otherwise (allowed_cidrs).",
            "  Stop: make down   State: make status   Logs: make logs",
            *(f"\n! {problem['reason']}\n  {problem['fix']}" for problem in problems),
            "",
        )
    )
