"""The sandbox as real processes on this host, alone or with the desktop, Jupyter and VS Code beside it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from aisandbox.builder.environments import environment
from aisandbox.manifest import REPOSITORY
from tests.support.environments import node, web_assets
from tests.support.without_netlink import without_netlink

PATIENCE_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Sandbox:
    """A running sandbox. `log` is what its server wrote."""

    url: str
    root: Path
    variables: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path
    client: httpx.Client
    programs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def program(arguments: list[str], variables: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, env=variables, cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, client: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{url} did not come up:\n{log.read_text()[-4000:]}")
        try:
            if client.get(url).status_code < 500:
                return
        except httpx.TransportError:
            time.sleep(0.02)


def launch(name: str) -> list[str]:
    """The command that starts a program beside the server."""
    command = [sys.executable, "-m", "sandbox_api.launch", name]
    return without_netlink(command) if name == "browser" else command


@contextmanager
def running(root: Path, *programs: str, before: Sequence[str] = (), **settings: str) -> Iterator[Sandbox]:
    """The server, and these programs of `sandbox_api.launch` (`desktop` stands for the three that make it).

    Args:
        root: SANDBOX_ROOT.
        before: a command that runs the server as its last arguments say.
        settings: further settings by name, lower case, without the prefix.
    """
    root.mkdir(parents=True, exist_ok=True)
    # Unix sockets have short names.
    sockets = Path("/tmp") / f"sandbox-{os.getpid()}-{free_port()}"
    sockets.mkdir(mode=0o700)
    port = int(settings.get("port") or free_port())
    wanted = [
        part
        for name in programs
        for part in (("display", "window-manager", "browser") if name == "desktop" else (name,))
    ]
    values = {
        "root": str(root),
        "port": str(port),
        "python": str(environment("workbench") / "bin" / "python"),
        "node": str(node()),
        "web_assets": str(web_assets()),
    }
    if "display" in wanted:
        # Any: several sandboxes may be starting at once.
        number = next(n for n in random.sample(range(100, 30000), 99) if not Path(f"/tmp/.X11-unix/X{n}").exists())
        values |= {"display": f":{number}", "vnc_socket": str(sockets / "vnc")}
    if "browser" in wanted:
        values["cdp_url"] = f"http://127.0.0.1:{free_port()}"
    if "jupyter" in wanted:
        values["jupyter_socket"] = str(sockets / "jupyter")
    if "code-server" in wanted:
        values["code_server_socket"] = str(sockets / "code-server")
    values |= settings
    # pytest's own variable makes kernels behave in another way.
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("SANDBOX_", "PYTEST_"))}
    variables |= {f"SANDBOX_{name.upper()}": value for name, value in values.items()}
    # The shells of tests read nobody's start-up files.
    variables["HOME"] = str(root)
    log = root / "server.log"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))
        started = {name: stack.enter_context(program(launch(name), variables, root / f"{name}.log")) for name in wanted}
        process = stack.enter_context(program([*before, sys.executable, "-m", "sandbox_api"], variables, log))
        wait_for("/v1/openapi.json", process, log, client)
        yield Sandbox(f"http://127.0.0.1:{port}", root, variables, process, log, client, started)
