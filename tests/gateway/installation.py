"""Real Open WebUI, set up and started as on the appliance, with every network connection that it makes on record."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from aisandbox.auxiliary import prompt
from aisandbox.builder import environments
from aisandbox.instance import environment_file
from aisandbox.instance.choose import access
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.deployment import Deployment, Serving
from aisandbox.instance.observe.notices import warnings
from aisandbox.instance.run.rendering import fill
from aisandbox.manifest import REPOSITORY, Manifest
from tests.gateway.stack import TEMPLATES, Gateway
from tests.gateway.upstream import MODEL, Upstream
from tests.support.deployments import CPU, GUIDE

OPEN = Choice()
"""The choice of someone who chose nothing."""
NARROWED = Choice(allowed_cidrs="127.0.0.1")
"""That of someone who lets only this computer in, so that the chat has the sandbox."""
START_S = 400
"""For a start on a busy machine."""
PEER = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, |inet6_addr\()"([^"]+)"')


def environment(
    manifest: Manifest, choice: Choice, secret: Mapping[str, str], *, embedded: bool = False
) -> dict[str, str]:
    """The rendered environment file, read as systemd reads it."""
    guards = access.of(choice)
    context = {
        "manifest": manifest,
        "deployment": Deployment(
            serving=Serving(model=MODEL, served_names=(MODEL,), embedded=embedded),
            guide=GUIDE,
            hardware=CPU,
            tasks=False,
            access=guards,
        ),
        "choice": choice,
        "chat_password": access.chat_password(choice, secret),
        "secrets": secret,
        "rag_template": prompt.TEMPLATE,
        "warnings": warnings(manifest, guards),
    }
    text = fill((TEMPLATES / "open-webui.env.j2").read_text(), context)
    return dict(environment_file.parse(text))


@dataclass
class OpenWebUI:
    """One installation, which can be restarted; use it as a context manager."""

    gateway: Gateway
    vllm: Upstream
    admin_password: str = field(default_factory=secrets.token_hex)
    secret_key: str = field(default_factory=secrets.token_hex)
    sandbox_key: str = field(default_factory=secrets.token_hex)
    choice: Choice = OPEN
    watched: bool = True
    """Whether its connections go on record, which costs time."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> Path:
        """`open-webui` of the locked environment."""
        return environments.environment("open-webui") / "bin" / "open-webui"

    @property
    def settings(self) -> dict[str, str]:
        secret = {
            "admin_password": self.admin_password, "sandbox_key": self.sandbox_key, "webui_secret_key": self.secret_key,
        }  # fmt: skip
        return environment(self.gateway.manifest, self.choice, secret)

    def routes(self) -> list[tuple[str, str, bool]]:
        """Every route of it: method, path, and whether it is the administrator's."""
        home = self.gateway.folder / "routes"
        home.mkdir(exist_ok=True)
        places = {"HOME": home, "DATA_DIR": home, "STATIC_DIR": home / "static", "FROM_INIT_PY": "true"}
        output = subprocess.run(
            [self.program.with_name("python"), Path(__file__).with_name("list_routes.py")],
            env={"PATH": "/usr/bin:/bin", **self.settings, **{name: str(value) for name, value in places.items()}},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout
        found: list[tuple[str, str, bool]] = json.loads(output.splitlines()[-1])
        return found

    @property
    def trace(self) -> Path:
        return self.gateway.folder / "connections"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def choose(self, choice: Choice) -> None:
        """Make a choice, as `aisandbox configure` does on the appliance."""
        self.stop()
        self.choice = choice
        self.gateway.choose(choice)
        self.start()

    def start(self) -> None:
        settings = self.settings
        home = Path(settings["HOME"])
        home.mkdir(parents=True, exist_ok=True)
        port = self.gateway.port("chat_upstream")
        watch = ["strace", "--seccomp-bpf", "-f", "-qq", "-e", "trace=connect", "-o", str(self.trace)]
        everything = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), **settings}
        log = (self.gateway.folder / "open-webui.log").open("ab")
        prepare = [str(self.program.with_name("python")), "-m", "aisandbox.instance.guard.chat_account"]
        subprocess.run(prepare, cwd=home, env=everything, stdout=log, stderr=subprocess.STDOUT, check=True)
        self.process = subprocess.Popen(
            [*(watch if self.watched else []), str(self.program), "serve", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home,
            env=everything,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self._wait(self.gateway.url("chat_upstream", "/ready"))

    def stop(self) -> None:
        if self.process:
            if self.watched:
                # The traced program, for strace itself ends with it.
                subprocess.run(["pkill", "-TERM", "-P", str(self.process.pid)], check=True)
            else:
                self.process.terminate()
            self.process.wait(20)
            self.process = None

    @property
    def neighbours(self) -> set[tuple[str, int]]:
        """Whom it has to talk to: the model server, the auxiliary service and the sandbox."""
        return {("127.0.0.1", self.gateway.port(name)) for name in ("api_upstream", "auxiliary_upstream", "sandbox")}

    def peers(self) -> set[tuple[str, int]]:
        """Addresses and ports of every connection tried so far, DNS look-ups included."""
        return {(address, int(port)) for port, address in PEER.findall(self.trace.read_text())}

    def _wait(self, url: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process and self.process.poll() is not None:
                raise RuntimeError((self.gateway.folder / "open-webui.log").read_text()[-3000:])
            try:
                if httpx.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        self.stop()
        raise TimeoutError(f"{url} does not answer after {START_S} s")
