"""Text in files: decoding, ranges of lines and bytes."""

from __future__ import annotations

import codecs
import os
from bisect import bisect_left
from typing import IO

from sandbox_api.errors import SandboxError

CHUNK = 2**20


def _binary(path: str) -> SandboxError:
    return SandboxError("binary_file", f"not UTF-8 text: {path}")


def decode(content: bytes, path: str) -> str:
    """UTF-8 without byte order mark.

    Raises:
        SandboxError: `binary_file` for anything else, and for text with NUL characters.
    """
    if b"\0" in content:
        raise _binary(path)
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise _binary(path) from error


class Text:
    """A file's text for editing.

    In files with Windows' line ends, callers write and find `\\n` for `\\r\\n`; single lines that end otherwise do no
    harm. Files without any are taken as they are.

    Attributes:
        raw: the file.
        content: its text, with `\\n` for every line end.
    """

    def __init__(self, content: bytes, path: str) -> None:
        """Raises: SandboxError: `binary_file`."""
        self.raw = content
        self._text = decode(content, path)
        self._bom = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
        self.content = self._text.replace("\r\n", "\n")
        # Places in `content` of line ends that are `\r\n` in the file.
        self._long = _long_ends(self._text)

    def searched(self, wanted: str) -> str:
        """A caller's text in the form of `content`."""
        return wanted.replace("\r\n", "\n") if self._long else wanted

    def found(self, wanted: str) -> list[range]:
        """Where a text occurs in `content`, without overlaps."""
        wanted = self.searched(wanted)
        places = []
        place = self.content.find(wanted) if wanted else -1
        while place >= 0:
            places.append(range(place, place + len(wanted)))
            place = self.content.find(wanted, place + len(wanted))
        return places

    def replaced(self, places: list[range], new: str) -> bytes:
        """The file with something else in these places of `content`. Everything outside of them stays as it is."""
        parts, done = [], 0
        for place in places:
            start, end = self._raw_place(place.start), self._raw_place(place.stop)
            parts += [self._text[done:start], self._with_ends(new, place)]
            done = end
        return self._bom + "".join([*parts, self._text[done:]]).encode()

    @staticmethod
    def of(raw: bytes) -> str:
        """What `content` would be, for a file that was just made from one."""
        return raw.removeprefix(codecs.BOM_UTF8).decode().replace("\r\n", "\n")

    def _raw_place(self, place: int) -> int:
        return place + bisect_left(self._long, place)

    def _with_ends(self, new: str, place: range) -> str:
        """A caller's text with the line ends of what it replaces; further lines end like the last of those."""
        if not self._long:
            return new
        ends = [self._end_at(n) for n in range(place.start, place.stop) if self.content[n] == "\n"]
        *lines, last = new.split("\n")
        ends += [ends[-1] if ends else self._end_near(place.stop)] * (len(lines) - len(ends))
        # A caller that writes `\r\n` means it.
        ended = [line + ("\n" if line.endswith("\r") else end) for line, end in zip(lines, ends, strict=False)]
        return "".join([*ended, last])

    def _end_at(self, place: int) -> str:
        index = bisect_left(self._long, place)
        return "\r\n" if self._long[index : index + 1] == [place] else "\n"

    def _end_near(self, place: int) -> str:
        """Of the line that a place lies in, else of the one above."""
        near = self.content.find("\n", place)
        return self._end_at(near if near >= 0 else self.content.rfind("\n"))


def _long_ends(raw: str) -> list[int]:
    places: list[int] = []
    place = raw.find("\r\n")
    while place >= 0:
        places.append(place - len(places))
        place = raw.find("\r\n", place + 2)
    return places


def read_all(stream: IO[bytes], most: int, path: str) -> bytes:
    """Raises `too_large` for more than `most` bytes; files whose size is not known beforehand included."""
    size = os.fstat(stream.fileno()).st_size
    content = b"" if size > most else _read(stream, most + 1)
    if max(size, len(content)) > most:
        raise too_large(path, most)
    return content


def too_large(path: str, most: int) -> SandboxError:
    message = f"more than {most} bytes (SANDBOX_READ_BYTES) would be read of {path}"
    return SandboxError("too_large", message, hint="Read a range of lines or bytes, or download it.")


def _read(stream: IO[bytes], count: int) -> bytes:
    parts = []
    while count > 0 and (part := stream.read(min(count, CHUNK))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_lines(stream: IO[bytes], start: int, end: int | None, most: int, path: str) -> tuple[bytes, int | None]:
    """Lines `start` to `end` (from 0, exclusive), without the line end of the last; what lies outside is not kept.

    Returns:
        the lines, and the number of lines of the file when its end was seen.
    """
    kept: list[bytes] = []
    number, length, last = 0, 0, b""
    while end is None or number < end:
        chunk = stream.read(CHUNK)
        if not chunk:
            total = number + (1 if last and not last.endswith(b"\n") else 0)
            return _without_end(b"".join(kept)), total
        last = chunk[-1:]
        first, number = number, number + chunk.count(b"\n")
        if number < start:
            continue
        low = _after_lines(chunk, start - first) if first < start else 0
        high = _after_lines(chunk, end - first) if end is not None and number >= end else len(chunk)
        kept.append(chunk[low:high])
        length += max(high - low, 0)
        if length > most:
            raise too_large(path, most)
    return _without_end(b"".join(kept)), None


def _after_lines(chunk: bytes, count: int) -> int:
    """Where the text after `count` lines begins."""
    place = 0
    for _ in range(count):
        place = chunk.index(b"\n", place) + 1
    return place


def _without_end(lines: bytes) -> bytes:
    return lines.removesuffix(b"\n").removesuffix(b"\r") if lines.endswith(b"\n") else lines


def whole_characters(content: bytes, start: int, path: str) -> tuple[str, int, int]:
    """The text in a range of bytes, and where it begins and ends when characters cut at the edges are left out."""
    low = 0
    while low < min(3, len(content)) and start and content[low] & 0xC0 == 0x80:
        low += 1
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(content[low:])
    except UnicodeDecodeError as error:
        raise _binary(path) from error
    if "\0" in text:
        raise _binary(path)
    high = len(content) - len(decoder.getstate()[0])
    return text, start + low, start + high
