"""Booted machines for tests: made from nothing, waited for until one can chat, and removed whatever happens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpx

from aisandbox import manifest
from aisandbox.builder import up
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import Machine
from aisandbox.builder.progress import Phases
from aisandbox.builder.remote import Remote

MANIFEST = manifest.load()
PATIENCE = 600.0
"""Seconds; the host may be busy."""


@contextmanager
def booted(name: str, image: Layer, user_data: str | None = None, *, narrowed: bool = False) -> Iterator[Machine]:
    """A machine with no past, until the block ends; narrowed to this host as `make up` does, or as on a cloud."""
    machine = Machine(name)
    machine.remove()
    try:
        start(machine, image, user_data, narrowed=narrowed)
        yield machine
    finally:
        machine.remove()


def start(machine: Machine, image: Layer, user_data: str | None = None, *, narrowed: bool = False) -> None:
    """Start it and wait until chat and API answer. Its data stay; with another user-data it is a new instance."""
    try:
        with Phases() as phases:
            up.boot(machine, image, user_data, phases, PATIENCE, narrowed=narrowed)
    except BuildError:
        print(journal(machine))
        raise


def reboot(machine: Remote) -> None:
    """Reboot it from inside and wait until chat and API answer again."""
    before = boot_id(machine)
    machine.run("sudo systemctl reboot", check=False)
    wait_for("the reboot", lambda: boot_id(machine) not in ("", before))
    wait_until_ready(machine)


def wait_until_ready(machine: Remote) -> None:
    """Wait until chat and API answer."""
    watch = up.Watch(machine)
    wait_for("chat and API", watch.ready)


def settle(machine: Remote) -> None:
    """Wait until what `aisandbox configure` has asked systemd for is done, and chat and API answer."""
    wait_for("systemd's jobs", lambda: "No jobs" in machine.run("systemctl list-jobs", check=False).stdout)
    wait_for("the instance", lambda: ready(machine))


def ready(machine: Remote) -> bool:
    """Whether it says that it is ready. Where its page cannot be reached from here, only its root is asked."""
    return published(machine)["state"] in ("ready", "unknown") and bool(status(machine)["state"] == "ready")


def wait_for(what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def boot_id(machine: Remote) -> str:
    """Names the machine's current boot; empty while it cannot be reached."""
    return machine.run("cat /proc/sys/kernel/random/boot_id", check=False).stdout.strip()


def output(machine: Remote, command: str) -> str:
    """What a command prints on the machine; the test fails with its messages when it fails."""
    result = machine.run(command, check=False)
    assert result.returncode == 0, f"{command}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout.strip()


def status(machine: Remote) -> dict[str, Any]:
    """What `aisandbox status --json` tells."""
    overview: dict[str, Any] = json.loads(output(machine, "sudo aisandbox status --json"))
    return overview


def published(machine: Addressed) -> dict[str, Any]:
    """The state that the progress page shows: that of `status` without private details, and cheap to read."""
    try:
        overview: dict[str, Any] = httpx.get(url(machine, "chat", "/aisandbox/status.json"), timeout=5).json()
    except (httpx.TransportError, ValueError):
        return {"state": "unknown", "problems": [], "phases": []}
    return overview


def properties(machine: Remote, unit: str, *names: str) -> dict[str, str]:
    """Properties of a systemd unit."""
    shown = output(machine, f"systemctl show --property={','.join(names)} {unit}")
    return dict(line.split("=", 1) for line in shown.splitlines())


def main_pid(machine: Remote, unit: str) -> int:
    return int(properties(machine, unit, "MainPID")["MainPID"])


class Addressed(Protocol):
    """Whatever can be reached at an address: a machine, or a container."""

    @property
    def address(self) -> str: ...


def url(machine: Addressed, port: str, path: str = "") -> str:
    """Address of one of the manifest's ports, from outside."""
    return f"http://{machine.address}:{MANIFEST.ports[port].port}{path}"


def journal(machine: Remote, lines: int = 200) -> str:
    """The end of the machine's journal, or of its console while it cannot be reached."""
    if machine.running:
        result = machine.run(f"sudo journalctl --boot --no-pager --lines={lines}", check=False)
        if result.returncode == 0:
            return result.stdout
    if not machine.console.exists():
        return "no console"
    return "\n".join(machine.console.read_text(errors="replace").splitlines()[-lines:])


class Visitor:
    """Somebody at the chat page, by Open WebUI's own API."""

    def __init__(self, machine: Addressed) -> None:
        self._client = httpx.Client(base_url=url(machine, "chat"), timeout=180)
        session = self._post("/api/v1/auths/signin", {"email": "", "password": ""})
        self._client.headers["Authorization"] = f"Bearer {session['token']}"

    def ask(self, model: str, question: str) -> str:
        """The model's answer through the chat port, at temperature 0."""
        form = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
        return str(self._post("/api/chat/completions", form)["choices"][0]["message"]["content"])

    def keep(self, title: str) -> None:
        """Put a chat into the history."""
        self._post("/api/v1/chats/new", {"chat": {"title": title}})

    def history(self) -> set[str]:
        """Titles of the chats kept."""
        response = self._client.get("/api/v1/chats/")
        assert response.status_code == 200, response.text
        return {chat["title"] for chat in response.json()}

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def post(self, path: str, form: dict[str, Any]) -> httpx.Response:
        return self._client.post(path, json=form)

    def _post(self, path: str, form: dict[str, Any]) -> dict[str, Any]:
        response = self.post(path, form)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer
