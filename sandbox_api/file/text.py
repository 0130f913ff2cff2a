"""Text in files: decoding, ranges of lines and bytes."""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass
from typing import IO

from sandbox_api.errors import SandboxError

CHUNK = 2**20


def _binary(path: str) -> SandboxError:
    return SandboxError("binary_file", f"it is no UTF-8 text: {path}")


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


@dataclass(frozen=True)
class Text:
    """A file's text for editing: line ends are `\\n` here; byte order mark and `\\r\\n` come back by `encode`."""

    content: str
    bom: bool
    crlf: bool

    @classmethod
    def of(cls, content: bytes, path: str) -> Text:
        text = decode(content, path)
        # Mixed line ends are left as they are: only a file that has one kind can be given back unharmed.
        crlf = text.count("\n") == text.count("\r\n") > 0
        return cls(text.replace("\r\n", "\n") if crlf else text, content.startswith(codecs.BOM_UTF8), crlf)

    def searched(self, wanted: str) -> str:
        """A caller's text in the form of `content`."""
        return wanted.replace("\r\n", "\n") if self.crlf else wanted

    def encode(self, content: str) -> bytes:
        text = content.replace("\r\n", "\n").replace("\n", "\r\n") if self.crlf else content
        return (codecs.BOM_UTF8 if self.bom else b"") + text.encode()


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
