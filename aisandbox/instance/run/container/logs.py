"""What the programs of the container say, from the files that supervisord keeps of it.

    python -m aisandbox.instance.run.container.logs

prints all of it, with names, for ever: it is the container's own output. The standard library must do.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aisandbox.instance.run.container.catalogue import Catalogue

LOOK_S = 0.25
MARK = "<5>"
"""What the journal calls a notice: `report.NOTICE`."""


@dataclass(frozen=True)
class Line:
    """One line of a program's."""

    program: str
    text: str
    notice: bool
    """Whether it is one of those that may be published."""

    def __str__(self) -> str:
        return f"{self.program.removeprefix('aisandbox-')}: {self.text}"


class Tail:
    """Follows one file, also when another takes its place."""

    def __init__(self, path: Path, last: int | None = None) -> None:
        """Begin with so many of the lines that are there, or with all of them."""
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._last = last

    def lines(self) -> Iterator[Line]:
        """What is new since the last call."""
        found = self._new()
        yield from found if self._last is None else deque(found, self._last)
        self._last = None

    def _new(self) -> Iterator[Line]:
        while True:
            if self._file is None:
                try:
                    self._file = self._path.open("rb")
                except OSError:
                    return
            *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
            yield from map(self._line, whole)
            if not self._replaced(self._file):
                return
            self._file.close()
            self._file = None

    def _replaced(self, file: BinaryIO) -> bool:
        try:
            there = self._path.stat()
        except OSError:
            return False
        return os.fstat(file.fileno()).st_ino != there.st_ino or there.st_size < file.tell()

    def _line(self, raw: bytes) -> Line:
        # A progress bar writes over itself.
        text = raw.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
        return Line(self._path.stem, text.removeprefix(MARK), text.startswith(MARK))


def read(catalogue: Catalogue, programs: Collection[str], last: int | None = None) -> Iterator[Line]:
    """What is there by now, one program after the other."""
    for program in programs:
        yield from Tail(catalogue.log(program), last).lines()


def follow(catalogue: Catalogue, programs: Collection[str], last: int | None = None) -> Iterator[Line]:
    """What is there, then whatever comes, for ever."""
    tails = [Tail(catalogue.log(program), last) for program in programs]
    while True:
        for tail in tails:
            yield from tail.lines()
        time.sleep(LOOK_S)


def main(catalogue: Catalogue) -> None:
    for line in follow(catalogue, tuple(catalogue.programs)):
        print(line, flush=True)


if __name__ == "__main__":
    main(Catalogue.here())
