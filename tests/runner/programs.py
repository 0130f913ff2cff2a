"""Records the programs of this host that the suites start; a fresh machine is tested for having all of them.

The kernel reports every file that is opened for execution (fanotify). A program counts if its process is in the control
group of a suite and the file is the host's own: in machines and containers other files have the same paths.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from aisandbox.builder.executions import watch
from aisandbox.builder.layers import Store, load
from aisandbox.manifest import REPOSITORY
from tests.runner.cpu import PREFIX

FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
"""Where packages and people put programs. Libraries and helpers come with the programs that use them."""
OPTIONAL = {"fc-list", "file", "lsb_release", "terraform"}
"""Programs that others look for and do without; a test that wants terraform is skipped where there is none."""
LIST = REPOSITORY / "tests" / "data" / "programs.txt"


def listed() -> set[str]:
    """Names of programs that the suites start and a minimal Debian lacks: what the set-up must bring."""
    return set(LIST.read_text().split())


class Recorder:
    """Collects names of programs until it is closed. Without the kernel's help `names` stays None."""

    def __init__(self) -> None:
        self.names: set[str] | None = set()
        if not watch(Path("/"), self._take):
            self.names = None

    def _take(self, file: int, process: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        if self.names is None or path.name in self.names or str(path.parent) not in FOLDERS:
            return
        # A process that has ended by now tells nothing; the next one of that program will.
        with suppress(OSError):
            is_of_host = os.path.samestat(os.fstat(file), path.stat())
            if is_of_host and PREFIX in Path(f"/proc/{process}/cgroup").read_text():
                self.names.add(path.name)


def beyond_debian(names: set[str]) -> set[str]:
    """Those of the programs that the minimal Debian system, the bake's lowest layer, lacks; none before it is baked."""
    root = Store().rootfs(load("cpu")["debian"])
    if not root.exists():
        return set()
    return {
        name for name in names - OPTIONAL if not any(os.path.lexists(f"{root}{folder}/{name}") for folder in FOLDERS)
    }
