"""Reads the files of a first boot before they are asked for, in the order of a recorded start.

On a disk that is filled when it is first touched (a volume from a cloud's snapshot) each block comes slowly, and a
program that is imported asks for one after the other. Asked for together they come together. What is in memory already
costs a system call. Standard library only: Debian's own Python runs it, before anything else.

    python -m aisandbox.instance.run.read_ahead record FILE MODULE...   write down what importing the modules reads
    python -m aisandbox.instance.run.read_ahead replay FILE...          have the kernel read it

A line of such a file is offset, length and path of a piece, in bytes; a length of 0 means to the end. Why it is done in
this way: docs/decisions/read-ahead.md.
"""

from __future__ import annotations

import importlib
import mmap
import os
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

READERS = 32
"""Files that are opened at once: a slow disk answers many requests in the time of one."""
MOST_BYTES = 3 << 30
"""No more is read, whatever the lists say."""
MEMORY_PART = 4
"""Nor more than this part (1 of 4) of the machine's memory."""
CHUNK = 128 << 10
"""What the kernel reads ahead at once by default; of a longer request it would leave out the rest."""
PRESENT = 1 << 63
"""Bit of an entry of /proc/self/pagemap: the page is in use."""


class Piece(NamedTuple):
    """A part of a file."""

    offset: int
    length: int
    """0 means to the end."""
    path: str


def record(file: Path, load: Callable[[], object]) -> None:
    """Write down what `load` reads by importing: of libraries what is touched, and each module's byte code,
    in the order in which the modules were ready."""
    load()
    pieces = dict.fromkeys((*_libraries(), *_modules()))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{piece.offset} {piece.length} {piece.path}\n" for piece in pieces))


def _modules() -> Iterator[Piece]:
    for module in list(sys.modules.values()):
        # Not by getattr: some modules import another one for each name that they are asked for.
        known = getattr(module, "__dict__", {})
        names = (known.get("__cached__"), known.get("__file__"))
        paths = (Path(name) for name in names if isinstance(name, str))
        found = next((path for path in paths if path.suffix in (".py", ".pyc") and path.is_file()), None)
        if found:
            yield Piece(0, 0, str(found.resolve()))


def _libraries() -> Iterator[Piece]:
    """The chunks in use of the files that are mapped into this process: the interpreter, and libraries."""
    with open("/proc/self/maps") as maps, open("/proc/self/pagemap", "rb", buffering=0) as pages:
        for line in maps:
            addresses, _, offset, *_, path = line.rstrip("\n").split(maxsplit=5)
            if not Path(path).is_file():
                continue
            start, end = (int(address, 16) // mmap.PAGESIZE for address in addresses.split("-"))
            pages.seek(start * 8)
            entries = array("Q", pages.read((end - start) * 8))
            used = (number * mmap.PAGESIZE for number, entry in enumerate(entries) if entry & PRESENT)
            for chunk in dict.fromkeys((int(offset, 16) + position) // CHUNK for position in used):
                yield Piece(chunk * CHUNK, CHUNK, path)


def replay(files: Iterable[Path], most: int) -> int:
    """Have the kernel read the pieces, at most so many bytes; returns how many it was asked for."""
    asked = 0
    with ThreadPoolExecutor(READERS) as readers:
        for size in readers.map(_ask, _within(_pieces(files), most)):
            asked += size
    return asked


def _pieces(files: Iterable[Path]) -> Iterator[Piece]:
    """The pieces of the lists by turns, as their programs start side by side."""
    lists = [file.read_text().splitlines() for file in files]
    for number in range(max(map(len, lists), default=0)):
        for lines in lists:
            if number < len(lines):
                offset, length, path = lines[number].split(" ", 2)
                yield Piece(int(offset), int(length), path)


def _within(pieces: Iterable[Piece], most: int) -> Iterator[Piece]:
    for piece in dict.fromkeys(pieces):
        # Byte code has a few kilobytes: its size is not worth a look at the slow disk.
        most -= piece.length or CHUNK // 8
        if most < 0:
            return
        yield piece


def _ask(piece: Piece) -> int:
    """Ask for one piece without waiting for it; 0 where an upgrade has taken the file away."""
    try:
        file = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        length = piece.length or os.fstat(file).st_size
        for offset in range(piece.offset, piece.offset + length, CHUNK):
            os.posix_fadvise(file, offset, CHUNK, os.POSIX_FADV_WILLNEED)
        return length
    finally:
        os.close(file)


def _import(modules: Iterable[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            print(f"read-ahead: not recorded: {name}: {type(error).__name__}: {error}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["record", file, *modules]:
            record(Path(file), lambda: _import(modules))
        case ["replay", *files]:
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            found = [path for path in map(Path, files) if path.is_file()]
            asked = replay(found, min(MOST_BYTES, memory // MEMORY_PART))
            print(f"read-ahead: asked for {asked >> 20} MiB")
        case _:
            print("usage: read_ahead record FILE MODULE... | replay FILE...", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
