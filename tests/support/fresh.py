"""A pristine Debian to set this project up on: what a cloud's minimal image has, and nothing of this host.

Its file system is an overlay over the bake's lowest layer. Each command runs in namespaces of its own; devices and
network are the host's, and package sources are in pip's and apt's settings, as behind a company proxy.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aisandbox.builder import bake
from aisandbox.builder.container import OVERLAY_OPTIONS, enter_namespaces
from aisandbox.builder.host import HostSettings
from aisandbox.builder.layers import Store
from aisandbox.builder.progress import Phases

PACKAGES = ("git", "make", "sudo")
"""What README tells a newcomer to install, and sudo, which every cloud image has."""


@dataclass(frozen=True)
class Fresh:
    """A root file system in a folder of the test."""

    folder: Path
    lower: str
    settings: HostSettings
    has_names: bool = True
    """Whether host names can be resolved; without them everything goes through the proxy of the settings."""

    def prepare(self) -> None:
        """Write the package sources and install `PACKAGES`."""
        for name in ("root", "overlay", "merged"):
            (self.folder / name).mkdir()
        self.write_settings()
        self.output("apt-get update -qq")
        self.install(*PACKAGES)

    def write_settings(self) -> None:
        """Tell pip and apt, and nobody else, where packages come from."""
        etc = self.folder / "root" / "etc"
        for name in ("apt/apt.conf.d", "dpkg/dpkg.cfg.d"):
            (etc / name).mkdir(parents=True, exist_ok=True)
        # It need not survive a crash of this host.
        (etc / "dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
        (etc / "resolv.conf").write_text(Path("/etc/resolv.conf").read_text() if self.has_names else "")
        pip = {
            "index-url": self.settings.index_url,
            "extra-index-url": " ".join(self.settings.extra_index_urls),
            "find-links": " ".join(self.settings.find_links),
            "cert": self.settings.ca_bundle,
            "proxy": self.settings.proxies.get("https_proxy"),
        }
        lines = [f"{name} = {value}" for name, value in pip.items() if value]
        (etc / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
        proxies = {scheme: self.settings.proxies.get(f"{scheme}_proxy") for scheme in ("http", "https")}
        lines = [f'Acquire::{scheme}::Proxy "{value}";\n' for scheme, value in proxies.items() if value]
        (etc / "apt/apt.conf.d/90proxy").write_text("".join(lines))

    def install(self, *packages: str) -> None:
        """Install Debian packages."""
        command = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
        self.output(f"{command} {' '.join(packages)}")

    def command(self, command: str, user: str = "root") -> list[str]:
        """Arguments that run a shell command on it, as after a login."""
        directory = self.folder / "merged"
        options = f"lowerdir={self.lower},upperdir={self.folder / 'root'},workdir={self.folder / 'overlay'}"
        mounts = [["-t", "overlay", "overlay", "-o", f"{options},{OVERLAY_OPTIONS}", str(directory)]]
        mounts += [["--rbind", f"/{name}", f"{directory}/{name}"] for name in ("dev", "proc", "sys")]
        mounts += [["-t", "tmpfs", "tmpfs", f"{directory}/{name}"] for name in ("run", "tmp")]
        steps = [["mount", *words] for words in mounts] + [["chmod", "1777", f"{directory}/tmp"]]
        for path in self.settings.paths:
            inside = directory / Path(path).relative_to("/")
            made = ["mkdir", "-p"] if Path(path).is_dir() else ["touch"]
            steps += [
                ["mkdir", "-p", str(inside.parent)],
                [*made, str(inside)],
                ["mount", "--rbind", path, str(inside)],
            ]
        login = ["exec", "chroot", str(directory), "runuser", "--login", user, "--command", command]
        return [*enter_namespaces(), "sh", "-c", " && ".join(map(shlex.join, [*steps, login]))]

    def run(self, command: str, user: str = "root", seconds: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a shell command to its end."""
        return subprocess.run(
            self.command(command, user), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
            check=False,
        )  # fmt: skip

    def output(self, command: str, user: str = "root") -> str:
        """What it prints; the test fails with its messages when it fails."""
        result = self.run(command, user)
        assert result.returncode == 0, f"{command}: exit {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout

    def cut_short(self, command: str, condition: Callable[[], bool], user: str = "root") -> None:
        """Start a command and end the machine at once when the condition holds, as a power cut would."""
        with subprocess.Popen(
            self.command(command, user), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                deadline = time.monotonic() + 300
                while not condition():
                    assert process.poll() is None, f"{command} ended before it was interrupted"
                    assert time.monotonic() < deadline, f"{command} did not get there"
                    time.sleep(0.05)
            finally:
                process.kill()


def lower() -> str:
    """The lowest layer, baked when it is not in the cache."""
    with Phases() as phases:
        return Store().lower_directories(bake.bake("cpu", phases, until="debian"))
