"""What a command wrote, kept within a bound: the beginning, the end, and the count of what lies between."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

IN_MEMORY = 256 * 1024
"""Bytes of one stream that stay in memory; more goes to an unnamed file."""
LONGEST_CHARACTER = 4
"""Bytes in UTF-8."""


def complete_length(data: bytes) -> int:
    """Length of `data` without a UTF-8 character that has only begun at its end."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 4 if 0xF0 <= byte < 0xF8 else 3 if 0xE0 <= byte < 0xF0 else 2 if 0xC0 <= byte < 0xE0 else 1
            return len(data) - back if needed > back else len(data)
    return len(data)


def _characters_from(data: bytes) -> int:
    """Where the first whole UTF-8 character of `data` begins."""
    return next((index for index, byte in enumerate(data[:3]) if byte & 0xC0 != 0x80), 0)


def _first(data: bytes, characters: int) -> bytes:
    """The beginning of `data`. A byte that is not UTF-8 counts as a character."""
    if len(data) <= characters:
        return data
    return data.decode(errors="surrogateescape")[:characters].encode(errors="surrogateescape")


def _last(data: bytes, characters: int) -> bytes:
    text = data.decode(errors="surrogateescape")
    return text[max(0, len(text) - characters) :].encode(errors="surrogateescape")


@dataclass(frozen=True)
class Excerpt:
    """Text of a stream. Offsets and counts are bytes of the stream.

    `end`: where to read on. `omitted_at`, `omitted`: what was left out of the middle of `text`.
    """

    text: str
    end: int
    omitted_at: int = 0
    omitted: int = 0


class Spool:
    """Bytes of one stream by their offset. Of more than `capacity` bytes, the first half and the last half are kept."""

    def __init__(self, capacity: int, folder: Path) -> None:
        self.size = 0
        self._capacity = capacity
        self._head = capacity // 2
        self._ring = capacity - self._head
        self._folder = folder
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._full_at: int | None = None

    @property
    def kept(self) -> int:
        return min(self.size, self._capacity if self._full_at is None else self._full_at)

    @property
    def dropped(self) -> int:
        return self.size - self.kept

    def append(self, data: bytes) -> None:
        start, self.size = self.size, self.size + len(data)
        if self._full_at is not None:
            return
        if self._file is None and self.kept > IN_MEMORY:
            try:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - lives as long as self
                self._file.write(self._memory)
            except OSError:
                self._full_at = start
                return
            self._memory = bytearray()
        view = memoryview(data)
        while view:
            position, room = self._place(start)
            piece = view[:room]
            try:
                self._store(position, piece)
            except OSError:  # the disk is full; the command goes on, what was kept so far stays
                self._full_at = min(start, self._head)
                return
            view, start = view[len(piece) :], start + len(piece)

    def _place(self, offset: int) -> tuple[int, int]:
        """Position of an offset in the store, and how many bytes follow it there without a break."""
        if offset < self._head:
            return offset, self._head - offset
        turned = (offset - self._head) % self._ring
        return self._head + turned, self._ring - turned

    def _store(self, position: int, data: memoryview) -> None:
        if self._file is None:
            self._memory[position : position + len(data)] = data
            return
        self._file.seek(position)
        while data:
            data = data[self._file.write(data) :]

    def _load(self, position: int, length: int) -> bytes:
        if self._file is None:
            return bytes(self._memory[position : position + length])
        self._file.seek(position)
        return self._file.read(length)

    def _gap(self) -> tuple[int, int]:
        """Offsets between which nothing is kept."""
        if self._full_at is not None:
            return self._full_at, self.size
        return self._head, max(self._head, self.size - self._ring)

    def read(self, start: int, limit: int) -> tuple[bytes, int]:
        """At most `limit` bytes from `start`, or from behind the gap when it lies there; and where they begin."""
        start = max(0, min(start, self.size))
        gap_start, gap_end = self._gap()
        if gap_start <= start < gap_end:
            start = gap_end
        end = min(self.size, start + limit)
        if start < gap_start < gap_end:
            end = min(end, gap_start)
        parts, offset = [], start
        while offset < end:
            position, room = self._place(offset)
            part = self._load(position, min(room, end - offset))
            if not part:
                break
            parts.append(part)
            offset += len(part)
        return b"".join(parts), start

    def text(self, start: int, limit: int, final: bool) -> tuple[str, int]:
        """Text from `start`, and the offset to read on from; a character that has only begun is left for then.

        Args:
            limit: characters.
            final: nothing follows any more.
        """
        data, start = self.read(start, limit * LONGEST_CHARACTER)
        end = start + len(data)
        if not (final and end == self.size) and not (self.dropped and end == self._gap()[0]):
            data = data[: complete_length(data)]
        data = _first(data, limit)
        return data.decode(errors="replace"), start + len(data)

    def excerpt(self, limit: int, final: bool) -> Excerpt:
        """All of it, or its beginning and its end when it has more than `limit` characters (0: no limit)."""
        if not self.dropped and (not limit or self.size <= limit * LONGEST_CHARACTER):
            text, end = self.text(0, limit or self.size, final)
            left = self.read(end, LONGEST_CHARACTER)[0]
            if not (len(left) if final else complete_length(left)):
                return Excerpt(text, end)
        half = (limit or 2 * max(self._head, self._ring)) // 2
        first, _ = self.read(0, half * LONGEST_CHARACTER)
        first = _first(first[: complete_length(first)], half)
        last_from = max(self.size - half * LONGEST_CHARACTER, len(first), self._gap()[1] if self.dropped else 0)
        last, tail_at = self.read(last_from, self.size - last_from)
        if not final:
            last = last[: complete_length(last)]
        end = tail_at + len(last)
        begin = max(_characters_from(last), len(last) - len(_last(last, half)))
        omitted = tail_at + begin - len(first)
        marker = f"\n[... {omitted} bytes left out; read on from offset {len(first)} ...]\n" if omitted else ""
        text = first.decode(errors="replace") + marker + last[begin:].decode(errors="replace")
        return Excerpt(text, end, len(first), omitted)

    def close(self) -> None:
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
