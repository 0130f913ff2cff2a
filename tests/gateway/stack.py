"""The gateway as it is shipped: real nginx, rendered templates, on loopback ports and in a folder of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import jinja2

from aisandbox import manifest
from aisandbox.instance.choose import access, host_names
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.places import Places
from aisandbox.instance.run import rendering, services
from aisandbox.manifest import Manifest

TEMPLATES = manifest.REPOSITORY / "templates"
OF_ROLE = manifest.REPOSITORY / "roles" / "gateway" / "templates"
SITES = ("chat", "api")


def _free_ports() -> Iterator[int]:
    """Ports that nobody listens on; runs side by side begin at different ones."""
    for port in count(18200 + os.getpid() % 100 * 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


_ports = _free_ports()


def render(template: str, **variables: object) -> str:
    environment = jinja2.Environment(  # noqa: S701 - configuration, not HTML from strangers
        loader=jinja2.FileSystemLoader([TEMPLATES, OF_ROLE]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**variables)


def wait_for_port(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port} after {seconds} s")


@dataclass(frozen=True)
class Gateway:
    """A running gateway, and the upstream ports and folders that it looks at."""

    manifest: Manifest
    folder: Path
    process: subprocess.Popen[bytes]

    def choose(self, choice: Choice) -> None:
        """Render what nginx reads of the choice and have it read, as `aisandbox configure` does on the appliance."""
        deployment = SimpleNamespace(access=access.of(choice))
        secrets = {"api_key": "generated-api-key", "chat_password": "generated-password"}
        context = {
            "manifest": self.manifest,
            "deployment": deployment,
            "choice": choice,
            "host_names": host_names.of(Places.of(self.manifest), self.manifest, choice),
            "secrets": secrets,
            "api_key": access.api_key(choice, secrets),
        }
        for entry in rendering.RENDERED:
            if services.NGINX in entry.units:
                text = rendering.fill((TEMPLATES / entry.template).read_text(), context)
                file = self.manifest.paths.etc / entry.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        self.reload()

    def reload(self) -> None:
        """Have nginx read its configuration again; afterwards nothing answers by the old one."""
        subprocess.run(["nginx", "-c", self.folder / "nginx.conf", "-t"], check=True, capture_output=True)
        before = self._workers()
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while not self._workers() - before or self._accepting() & before:
            if time.monotonic() > deadline:
                raise TimeoutError("nginx goes on by its old configuration")
            time.sleep(0.02)

    def _workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in children.read_text().split()}

    def _accepting(self) -> set[int]:
        """Workers that take new connections; those that only finish old ones say so in their titles."""
        taking = set()
        for pid in self._workers():
            try:
                if b"shutting down" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    taking.add(pid)
            except OSError:
                continue
        return taking

    def url(self, port: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port(port)}{path}"

    def port(self, name: str) -> int:
        return self.manifest.ports[name].port

    @property
    def www(self) -> Path:
        """Where the status publisher writes `status.json` and, once the model serves, `ready`."""
        return self.manifest.paths.run / "www"

    def log(self) -> str:
        return (self.folder / "access.log").read_text() + (self.folder / "error.log").read_text()


def _manifest(folder: Path) -> Manifest:
    """The real manifest with ports and places of this test's own."""
    real = manifest.load()
    ports = {name: port.model_copy(update={"port": next(_ports)}) for name, port in real.ports.items()}
    places = {name: folder / name for name in ("opt", "etc", "data", "run")}
    return real.model_copy(update={"ports": ports, "paths": real.paths.model_copy(update=places)})


def _configure(folder: Path, here: Manifest) -> Path:
    variables = {"manifest": here.model_dump(mode="json", by_alias=True), "gateway_logs": str(folder)}
    (folder / "aisandbox").mkdir()
    for site in SITES:
        (folder / "aisandbox" / f"{site}.conf").write_text(render(f"nginx/{site}.conf.j2", **variables))
    for place in (here.paths.opt / "www", here.paths.run / "www"):
        place.mkdir(parents=True)
    # As it comes with the image: it knows no choice yet.
    lock = here.paths.etc / "nginx" / "api-lock.conf"
    lock.parent.mkdir(parents=True)
    lock.write_text(render("nginx/api-lock.conf.j2", **variables))
    for page in ("progress.html", "connect.html"):
        (here.paths.opt / "www" / page).write_text(render(f"{page}.j2", **variables))
    configuration = folder / "nginx.conf"
    configuration.write_text(render("nginx/nginx.conf.j2", **variables))
    return configuration


@contextmanager
def running_gateway(folder: Path, choice: Choice | None = Choice()) -> Iterator[Gateway]:  # noqa: B008 - immutable
    """A gateway in force for this choice; None leaves it as it comes with the image."""
    if not shutil.which("nginx"):
        raise FileNotFoundError("nginx is missing: apt-get install nginx-light")
    # nginx's workers are not root, and pytest's folders are private, however deep they lie.
    for parent in (folder, *folder.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(0o755)
    here = _manifest(folder)
    command = ["nginx", "-c", str(_configure(folder, here)), "-g", f"daemon off; pid {folder}/nginx.pid;"]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    process = subprocess.Popen(command)
    try:
        wait_for_port(here.ports["chat"].port)
        gateway = Gateway(here, folder, process)
        if choice:
            gateway.choose(choice)
        yield gateway
    finally:
        process.terminate()
        process.wait(10)
