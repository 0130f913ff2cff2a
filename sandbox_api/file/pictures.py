"""Width and height of pictures, from the first bytes of the file."""

from __future__ import annotations

import struct
from typing import IO

# Of JPEG: those start-of-frame markers that carry the size.
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def dimensions(stream: IO[bytes]) -> tuple[int, int] | None:
    """Pixels of a PNG, GIF or JPEG; None for anything else."""
    head = stream.read(32)
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        return struct.unpack(">II", head[16:24])
    if head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        return struct.unpack("<HH", head[6:10])
    return _jpeg(stream) if head.startswith(b"\xff\xd8\xff") else None


def _jpeg(stream: IO[bytes]) -> tuple[int, int] | None:
    place = 2
    for _ in range(256):
        stream.seek(place)
        segment = stream.read(9)
        if len(segment) < 9 or segment[0] != 0xFF:
            return None
        if segment[1] in FRAMES:
            height, width = struct.unpack(">HH", segment[5:9])
            return width, height
        place += 2 + int.from_bytes(segment[2:4], "big")
    return None
