"""Shells that were started ahead and wait for their command: to start one takes longer than most commands do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from sandbox_api.shell.process import Ended, Output, Process, Spawned

SPARES = 8
REFILL_S = 0.003
"""A spare is replaced a little later: not while the answer to the command that took it is on its way."""
LONGEST = 2000
"""Bytes of a command; the shell reads it one by one."""
# The command runs as `bash -c` would run it, but for the place that its syntax errors name, and for the variable: to
# unset it in the `eval` would show in those errors.
WAIT = "IFS= read -rd '' -u {0} __sandbox_command; exec {0}<&-; SECONDS=0; eval \"$__sandbox_command\""


class Spares:
    """Spares of bash for one folder and environment."""

    def __init__(self, shell: Path, directory: Path, variables: Mapping[bytes, bytes]) -> None:
        self.directory = directory
        self.variables = variables
        self._shell = shell
        self._spares: list[tuple[Spawned, int]] = []
        self._coming = 0
        self._place: tuple[int, int] | None = None
        self._stopped = False

    def _here(self) -> tuple[int, int] | None:
        try:
            found = self.directory.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def refill(self) -> None:
        """See to it that there are as many as there should be, soon."""
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        while len(self._spares) + self._coming < SPARES:
            self._coming += 1
            loop.call_later(REFILL_S * self._coming, self._add)

    def _add(self) -> None:
        self._coming -= 1
        if self._stopped:
            return
        here = self._here()
        if here != self._place:
            self._drop()
            self._place = here
        if here is None:
            return
        try:
            read, write = os.pipe()
        except OSError:
            return
        try:
            arguments = [self._shell.name, "-c", WAIT.format(read)]
            spawned = Spawned(self._shell, arguments, self.directory, self.variables, inherited=(read,))
        except OSError:
            os.close(write)
            return  # the next command finds out why, and says so
        finally:
            os.close(read)
        self._spares.append((spawned, write))

    def run(self, command: bytes, output: Output, ended: Ended) -> Process | None:
        """Have a spare run this; None when there is none, or it would not do."""
        while self._spares and len(command) <= LONGEST:
            spawned, write = self._spares.pop(0)
            self.refill()
            try:
                usable = self._here() == self._place and spawned.popen.poll() is None
                if usable:
                    os.write(write, command + b"\0")
            except BrokenPipeError:
                usable = False
            finally:
                os.close(write)
            if usable:
                return Process(spawned, output, ended)
            spawned.discard()
        self.refill()
        return None

    def _drop(self) -> None:
        for spawned, write in self._spares:
            os.close(write)
            spawned.discard()
        self._spares.clear()

    def stop(self) -> None:
        self._stopped = True
        self._drop()
