"""Records the programs of this host that the suites start; a fresh machine is tested for having all of them.

The kernel reports every file that is opened for execution (fanotify). A program counts if its process is in the control
group of a suite and the file is the host's own: in machines and containers other files have the same paths.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from contextlib import suppress
from pathlib import Path

from aisandbox.build.layers import Store, load
from aisandbox.manifest import REPOSITORY
from tests.runner.cpu import PREFIX

FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
"""Where packages and people put programs. Libraries and helpers come with the programs that use them."""
OPTIONAL = {"fc-list", "file", "lsb_release", "terraform"}
"""Programs that others look for and do without; a test that wants terraform is skipped where there is none."""
LIST = REPOSITORY / "tests" / "data" / "programs.txt"
_CLASS_NOTIFICATION, _UNLIMITED_QUEUE = 0x0, 0x10
_MARK_ADD, _MARK_FILE_SYSTEM, _OPENED_TO_EXECUTE = 0x1, 0x100, 0x1000
_EVENT = struct.Struct("=IBBHQii")
"""Length, version, two fields of no use here, mask, descriptor of the file, process."""


def listed() -> set[str]:
    """Names of programs that the suites start and a minimal Debian lacks: what the set-up must bring."""
    return set(LIST.read_text().split())


class Recorder:
    """Collects names of programs until it is closed. Without the kernel's help `names` stays None."""

    def __init__(self) -> None:
        self.names: set[str] | None = None
        library = ctypes.CDLL(None, use_errno=True)
        flags = os.O_RDONLY | os.O_LARGEFILE | os.O_CLOEXEC
        self._descriptor = library.fanotify_init(_CLASS_NOTIFICATION | _UNLIMITED_QUEUE, flags)
        if self._descriptor < 0:
            return
        mask = ctypes.c_uint64(_OPENED_TO_EXECUTE)
        if library.fanotify_mark(self._descriptor, _MARK_ADD | _MARK_FILE_SYSTEM, mask, -100, b"/") == 0:
            self.names = set()
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            events = os.read(self._descriptor, 65536)
            while events:
                length, *_, file, process = _EVENT.unpack_from(events)
                events = events[length:]
                try:
                    self._take(file, process)
                finally:
                    os.close(file)

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
