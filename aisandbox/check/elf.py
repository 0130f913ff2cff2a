"""What shared libraries ask of others, read from the files: nothing of what is checked is run."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAGIC = b"\x7fELF\x02\x01"
"""64 bits, little endian: all that the image's processors run."""
LOAD, DYNAMIC = 1, 2
NEEDED, STRING_TABLE, STRING_SIZE, SONAME = 1, 5, 10, 14
MOST_HEADERS, LONGEST_DYNAMIC, LONGEST_STRINGS = 512, 2**20, 32 * 2**20


class BrokenError(ValueError):
    """The file begins as a library, and cannot be one."""


@dataclass(frozen=True)
class Library:
    """Names in a library's dynamic section."""

    soname: str
    """Empty where it has none."""
    needed: tuple[str, ...]


def read(path: Path) -> Library | None:
    """The library in that file; None when the file is none, or is linked to nothing.

    Raises:
        BrokenError: it is cut off, or its tables lead out of it.
        OSError: it cannot be read.
    """
    with path.open("rb") as handle:
        head = handle.read(64)
        if not head.startswith(MAGIC):
            return None
        try:
            return _read(handle, head)
        except (struct.error, OverflowError, ValueError) as error:
            raise BrokenError(f"not a whole library: {error}") from error


def _read(handle: BinaryIO, head: bytes) -> Library | None:
    offset = struct.unpack_from("<Q", head, 32)[0]
    size, count = struct.unpack_from("<HH", head, 54)
    if size != 56 or count > MOST_HEADERS:
        raise ValueError("unusual program headers")
    table = _at(handle, offset, size * count)
    headers = [struct.unpack_from("<IIQQQQ", table, index * size) for index in range(count)]
    dynamic = next(((place, length) for kind, _, place, _, _, length in headers if kind == DYNAMIC), None)
    if dynamic is None:
        return None
    if dynamic[1] > LONGEST_DYNAMIC:
        raise ValueError("unusual dynamic section")
    raw = _at(handle, *dynamic)
    entries = [struct.unpack_from("<qQ", raw, index) for index in range(0, len(raw) - 15, 16)]
    values = {tag: value for tag, value in entries if tag in (STRING_TABLE, STRING_SIZE, SONAME)}
    segments = [(address, place, length) for kind, _, place, address, _, length in headers if kind == LOAD]
    starts = [
        place + values[STRING_TABLE] - address
        for address, place, length in segments
        if address <= values.get(STRING_TABLE, -1) < address + length
    ]
    if not starts or values.get(STRING_SIZE, LONGEST_STRINGS + 1) > LONGEST_STRINGS:
        raise ValueError("no names")
    strings = _at(handle, starts[0], values[STRING_SIZE])

    def name(index: int) -> str:
        return strings[index : strings.index(b"\0", index)].decode(errors="replace")

    needed = tuple(name(value) for tag, value in entries if tag == NEEDED)
    return Library(name(values[SONAME]) if SONAME in values else "", needed)


def _at(handle: BinaryIO, offset: int, length: int) -> bytes:
    if offset > os.fstat(handle.fileno()).st_size:
        raise ValueError("cut off")
    handle.seek(offset)
    content = handle.read(length)
    if len(content) != length:
        raise ValueError("cut off")
    return content
