"""Downloads, seen from the caller: a worker process does the work, and is ended when nothing arrives any more.

A thread that hangs in a system call or in foreign code cannot be stopped in Python; a process can. It also keeps the
libraries' memory, and their crashes, apart.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aisandbox.instance.errors import UnobtainableError, UnreachableError
from aisandbox.instance.fetch.request import Listing, Request

STALL_SECONDS = 60.0
"""Without a sign of life for so long, a worker is given up."""
SPEED_SECONDS = 10.0
"""Time over which speed is averaged."""
ESTIMATE_AFTER_SECONDS = 2.0
"""Before that, a speed says nothing about the time left."""
GENEROUS_CPUS, GENEROUS_MEMORY = 8, 32 * 1024**3
"""What a machine must have for Xet to take as much of it as helps."""
KEPT_ENVIRONMENT = ("PATH", "LANG", "HOME", "HF_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR")
LIBRARY = Path(__file__).parents[3]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Progress:
    """How far a download is. Sizes in bytes, times in seconds."""

    bytes_done: int
    bytes_total: int
    bytes_per_second: float
    eta_s: float | None


class Download:
    """One attempt to get a model; a context that ends its worker.

    Args:
        xet: whether the worker may use Xet, the hub's own transfer protocol.
        user: account that the worker runs as, and that its files belong to; None: the caller's.
    """

    def __init__(self, request: Request, cache: Path, *, xet: bool = True, user: str | None = None) -> None:
        self._request = request
        # Never our package from the current folder, which may be the sandbox's while root calls.
        command = [sys.executable, "-P", "-m", "aisandbox.instance.fetch.worker"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(cache, xet),
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=() if user else None,
            umask=0o022,
        )
        self._pending = b""
        self._total = 0
        self.folder = Path()
        """The model's folder in the cache, once it is fetched."""
        # The token goes by the pipe: a process's arguments and environment can be read by others.
        job = {"request": asdict(request), "cache": str(cache), "timeout_s": STALL_SECONDS / 2}
        self._tell(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()

    def look_up(self) -> Listing:
        """What the hub has, with the small files that tell how large the model is.

        Raises:
            UnobtainableError: it cannot be had as chosen.
            UnreachableError: not now.
        """
        for kind, value in self._answers():
            if kind == "found":
                listing = Listing(**value)
                self._total = sum(listing.sizes.values())
                return listing
        raise AssertionError("answers end with an error or a result")

    def fetch(self) -> Iterator[Progress]:
        """Download what is missing, all of it verified; `folder` is known once this ends.

        Raises:
            UnobtainableError: it cannot be had as chosen.
            UnreachableError: not now; what has arrived is kept.
        """
        speed = _Speed(self._total)
        self._tell({"go": True})
        for kind, value in self._answers():
            if kind == "bytes":
                yield speed.at(value)
            elif kind == "folder":
                self.folder = Path(value)
                return

    def _tell(self, message: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died; reading its answer tells how
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _answers(self) -> Iterator[tuple[str, Any]]:
        while True:
            for kind, value in self._read().items():
                if kind == "unobtainable":
                    raise UnobtainableError(*value)
                if kind == "unreachable":
                    raise UnreachableError(*value)
                yield kind, value

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([descriptor], [], [], STALL_SECONDS)[0]:
                raise UnreachableError(
                    f"Nothing has arrived from {self._request.address} for {STALL_SECONDS:.0f} s, so it is given up."
                )
            data = os.read(descriptor, 1024**2)
            if not data:
                raise UnreachableError(f"The download stopped unexpectedly ({self._death()}).")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _death(self) -> str:
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit status {code}"


class _Speed:
    """Speed and time left, from the bytes that have arrived by now."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = time.monotonic()
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, done: int) -> Progress:
        now = time.monotonic()
        done = max(0, min(done, self._total))
        self._seen.append((now, done))
        while now - self._seen[0][0] > SPEED_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        then, before = self._seen[0]
        speed = max(done - before, 0) / (now - then) if now > then else 0.0
        eta = None
        if speed and now - self._started >= ESTIMATE_AFTER_SECONDS:
            eta = round((self._total - done) / speed, 1)
        return Progress(done, self._total, round(speed), eta)


def _environment(cache: Path, xet: bool) -> dict[str, str]:
    """No more than the worker needs. Its cache is the standard one, so that other tools find the model there."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT_ENVIRONMENT or name.lower() in PROXIES}
    settings = {
        "PYTHONPATH": str(LIBRARY),
        "HF_HOME": str(cache.parent),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        # One model's files lie in its own folder, so that removing it frees them.
        "HF_HUB_DISABLE_SHARED_BLOBS": "1",
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
    }
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if (os.cpu_count() or 1) >= GENEROUS_CPUS and memory >= GENEROUS_MEMORY:
        settings["HF_XET_HIGH_PERFORMANCE"] = "1"
    return kept | {"HOME": str(cache.parent)} | settings
