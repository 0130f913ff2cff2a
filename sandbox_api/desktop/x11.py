"""The picture of an X display, by the X protocol itself: starting a program for it would take ten times as long."""

from __future__ import annotations

import socket
import struct
import zlib
from dataclasses import dataclass

TIMEOUT_S = 5.0
LITTLE_ENDIAN = ord("l")
Z_PIXMAP = 2
GET_IMAGE = 73
BITS_PER_PIXEL = 32


class DisplayError(Exception):
    """The display is not there, refuses us, or has a form that we cannot read."""


@dataclass(frozen=True)
class Picture:
    """Pixels in rows, four bytes each: blue, green, red, unused."""

    width: int
    height: int
    pixels: bytes | bytearray

    def png(self) -> bytes:
        width, height = self.width, self.height
        colours = bytearray(width * height * 3)
        for channel in range(3):
            colours[channel::3] = self.pixels[2 - channel :: 4]
        line = width * 3
        # Each row begins with its filter; none: it takes longer than it saves here.
        rows = b"".join(b"\0" + colours[start : start + line] for start in range(0, len(colours), line))
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 3)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )


def _read(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise DisplayError("the display broke off")
        view = view[count:]
    return data


class Connection:
    """A short connection to a display, such as `:99`. `width` and `height` are those of its screen, in pixels."""

    def __init__(self, display: str) -> None:
        number = display.removeprefix(":").split(".")[0]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        try:
            self._socket.connect(f"/tmp/.X11-unix/X{number}")  # noqa: S108 - X11's own place
            self._socket.sendall(struct.pack("<BxHHHHxx", LITTLE_ENDIAN, 11, 0, 0, 0))
            accepted, reason_size, _, _, words = struct.unpack("<BBHHH", _read(self._socket, 8))
            setup = _read(self._socket, words * 4)
        except OSError as error:
            self._socket.close()
            raise DisplayError(f"display {display} does not answer: {error.strerror or error}") from error
        if accepted != 1:
            self._socket.close()
            raise DisplayError(f"display {display} refuses: {setup[:reason_size].decode(errors='replace')}")
        (vendor,) = struct.unpack_from("<H", setup, 16)
        formats_at = 32 + (vendor + 3) // 4 * 4
        formats = {setup[at]: setup[at + 1] for at in range(formats_at, formats_at + setup[21] * 8, 8)}
        screen = formats_at + setup[21] * 8
        (self._root,) = struct.unpack_from("<I", setup, screen)
        self.width, self.height = struct.unpack_from("<HH", setup, screen + 20)
        depth = setup[screen + 38]
        if setup[22] != 0 or formats.get(depth) != BITS_PER_PIXEL:
            self._socket.close()
            raise DisplayError(f"display {display} has a depth of {depth}, not 24")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def picture(self) -> Picture:
        """What the screen shows now, without the mouse pointer."""
        request = struct.pack(
            "<BBHIhhHHI", GET_IMAGE, Z_PIXMAP, 5, self._root, 0, 0, self.width, self.height, 0xFFFFFFFF
        )
        try:
            self._socket.sendall(request)
            kind, words = struct.unpack_from("<BxxxI", _read(self._socket, 32))
            if kind != 1:
                raise DisplayError("the display gives no picture")
            return Picture(self.width, self.height, _read(self._socket, words * 4))
        except OSError as error:
            raise DisplayError(f"the display gives no picture: {error}") from error
