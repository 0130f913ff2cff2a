"""What the first boot reads is recorded in its order, and read ahead within bounds."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aisandbox.builder.waiting import wait_until
from aisandbox.instance.run import read_ahead
from aisandbox.instance.run.read_ahead import CHUNK, Piece
from tests.support.lazy_disk import LazyDisk, serving

PROGRAM = Path(read_ahead.__file__)


def resident(path: Path) -> int:
    """Pages of the file that are in memory."""
    size = path.stat().st_size
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m,
    ):
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(m))
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
        return sum(page & 1 for page in pages)


def cold(path: Path, size: int) -> Path:
    """A file that is on the disk and not in memory."""
    path.write_bytes(os.urandom(size))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def write(file: Path, *pieces: Piece) -> Path:
    file.write_text("".join(f"{piece.offset} {piece.length} {piece.path}\n" for piece in pieces))
    return file


def read(file: Path) -> list[Piece]:
    lines = (line.split(" ", 2) for line in file.read_text().splitlines())
    return [Piece(int(offset), int(length), path) for offset, length, path in lines]


def test_the_order_of_the_imports_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text("import second\n")
    (tmp_path / "second.py").write_text(
        "import sqlite3\ndef __getattr__(name): raise ImportError(name)\ndel __cached__\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, str(PROGRAM), "record", str(tmp_path / "lists" / "list"), "first", "no_such_module"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "not recorded: no_such_module" in done.stderr
    pieces = read(tmp_path / "lists" / "list")
    names = [Path(piece.path).name.partition(".")[0] for piece in pieces if not piece.length]
    assert names.index("dbapi2") < names.index("second") < names.index("first"), "a module is ready after what it needs"
    assert all(Path(piece.path).is_file() for piece in pieces)
    libraries = {Path(piece.path).name.partition(".")[0]: piece for piece in pieces if piece.length}
    assert {"_sqlite3", "libsqlite3"} <= {name.replace("-3", "3") for name in libraries}
    assert all(piece.length == CHUNK and piece.offset % CHUNK == 0 for piece in libraries.values())
    assert len(set(pieces)) == len(pieces)


def test_of_a_library_only_what_is_touched(tmp_path: Path) -> None:
    file = cold(tmp_path / "library.so", 64 * CHUNK)
    script = (
        f"import mmap, sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import read_ahead; from pathlib import Path\n"
        f"f = open({str(file)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); m[40 * {CHUNK}]\n"
        f"read_ahead.record(Path({str(tmp_path / 'list')!r}), lambda: None)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    chunks = {piece.offset // CHUNK for piece in read(tmp_path / "list") if piece.path == str(file)}
    # A file system in memory may map a whole page of 2 MiB for it.
    huge = (2 << 20) // CHUNK
    assert 40 in chunks <= set(range(40 // huge * huge, (40 // huge + 1) * huge))


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    whole, part, other = (cold(tmp_path / name, 8 * CHUNK) for name in ("whole", "part", "other"))
    if resident(whole):
        pytest.skip("this file system keeps what it is told to forget")
    gone = Piece(0, 0, str(tmp_path / "gone"))
    lists = write(tmp_path / "list", gone, Piece(0, 0, str(whole)), Piece(2 * CHUNK, CHUNK, str(part)))
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PROGRAM), "replay", str(lists), str(tmp_path / "no-list")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"read-ahead: asked for {9 * CHUNK >> 20} MiB\n"
    pages = CHUNK // mmap.PAGESIZE
    assert wait_until(lambda: resident(whole) == 8 * pages and resident(part) >= pages, 20), (
        "it is asked for, not waited for"
    )
    assert resident(part) < 8 * pages
    assert resident(other) == 0


def test_no_more_is_read_than_allowed_and_the_first_comes_first(tmp_path: Path) -> None:
    pieces = [Piece(number * CHUNK, CHUNK, str(cold(tmp_path / "file", 8 * CHUNK))) for number in range(8)]
    assert read_ahead.replay([write(tmp_path / "list", *pieces)], 3 * CHUNK) == 3 * CHUNK
    assert read_ahead.replay([write(tmp_path / "list", *pieces, *pieces)], 99 * CHUNK) == 8 * CHUNK, "nothing twice"


def test_programs_that_start_side_by_side_are_read_by_turns(tmp_path: Path) -> None:
    lists = [write(tmp_path / name, *(Piece(n, 1, name) for n in range(count))) for name, count in (("a", 3), ("b", 1))]
    assert [(piece.path, piece.offset) for piece in read_ahead._pieces(lists)] == [
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("a", 2),
    ]


def test_the_lazy_disk_of_the_benchmark_waits_once_for_each_block(tmp_path: Path) -> None:
    """QEMU's own reader asks it, as in tests/bench/bench_cold_disk.py."""
    file = cold(tmp_path / "disk", 4 * CHUNK)
    disk = LazyDisk(file, CHUNK, delay=0.2)
    with serving(disk, tmp_path / "socket") as address:
        copy = ["qemu-img", "convert", "-f", "raw", "-O", "raw", address, str(tmp_path / "copy")]
        began = time.monotonic()
        subprocess.run(copy, check=True)
        assert (disk.fetched, time.monotonic() - began > 0.2) == (4, True)
        assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    began = time.monotonic()
    with ThreadPoolExecutor(8) as readers:
        again = LazyDisk(file, CHUNK, delay=0.2)
        pieces = list(readers.map(lambda number: again.read(number * CHUNK // 2, CHUNK // 2), range(8)))
    assert b"".join(pieces) == file.read_bytes()
    assert 0.2 <= time.monotonic() - began < 4 * 0.2, "blocks come side by side"
    disk.close()
    again.close()
