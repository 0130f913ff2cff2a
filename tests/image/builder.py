"""The builder's command line, run as a person would, on a cache and a checkout of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from aisandbox.builder.layers import Layer, Store, cache_directory
from aisandbox.manifest import REPOSITORY


@dataclass
class Builder:
    """`python -m aisandbox.builder` in a checkout, with a cache folder."""

    cache: Path
    checkout: Path = REPOSITORY
    python: Path = Path(sys.executable)
    variables: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022
    prefix: tuple[str, ...] = ()
    """Words before the command, such as `setpriv` and its options."""

    def lend(self, layers: tuple[Layer, ...], downloads: tuple[str, ...] = ("uv",)) -> None:
        """Show the cache layers of the real one, and its downloads, so that only the rest is baked."""
        (self.cache / "layers").mkdir(parents=True)
        for layer in layers:
            (self.cache / "layers" / layer.id).symlink_to(Store().path(layer))
        for name in downloads:
            (self.cache / name).symlink_to(cache_directory() / name)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command as a terminal does: in a process group of its own."""
        return subprocess.Popen(
            [*self.prefix, str(self.python), "-m", "aisandbox.builder", *arguments],
            cwd=self.checkout,
            env={**os.environ, "AISANDBOX_CACHE": str(self.cache), **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            umask=self.umask,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=540)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def refusal(self, *arguments: str) -> tuple[str, str]:
        """The message and the fix of a command that must fail, and must show nothing else."""
        result = self.run(*arguments)
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr
        *_, message, fix = result.stderr.splitlines()
        assert message.startswith("error: ") and fix.startswith("  fix: "), result.stderr
        return message.removeprefix("error: "), fix.removeprefix("  fix: ")

    def traces(self) -> list[str]:
        """Processes and mounts that have to do with the cache, in whatever namespace."""
        # The kernel shows a blank in the name of a mount as an octal number.
        marks = (str(self.cache), str(self.cache).replace(" ", "\\040"))
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "mountinfo"):
                try:
                    text = (process / name).read_text(errors="replace")
                except OSError:
                    continue
                if any(mark in text for mark in marks):
                    found.append(f"{process}/{name}")
        return found


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Ctrl-C, as the terminal sends it to the whole process group; returns exit status and messages."""
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def wait_for_text(path: Path, text: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() or text not in path.read_text(errors="replace"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{text!r} not in {path} after {seconds:.0f} s")
        time.sleep(0.1)
