"""The part of RFB, the protocol of VNC, that we speak ourselves: opening a connection, resizing, view-only.

Numbers are those of RFC 6143 and of the extensions that TigerVNC and noVNC share.
"""

from __future__ import annotations

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from pathlib import Path

VERSION = b"RFB 003.008\n"
NO_SECURITY = 1
DESKTOP_SIZE_EXTENDED = -308

# Messages of a viewer
SET_PIXEL_FORMAT = 0
SET_ENCODINGS = 2
UPDATE_REQUEST = 3
KEY = 4
POINTER = 5
CUT_TEXT = 6
CONTINUOUS_UPDATES = 150
FENCE = 248
SET_DESKTOP_SIZE = 251
QEMU = 255

FIXED = {SET_PIXEL_FORMAT: 20, UPDATE_REQUEST: 10, KEY: 8, POINTER: 6, CONTINUOUS_UPDATES: 10, QEMU: 12}
HARMLESS = {SET_PIXEL_FORMAT, SET_ENCODINGS, UPDATE_REQUEST, CONTINUOUS_UPDATES, FENCE}
LONGEST_MESSAGE = 2**20
BLOCK = 2**16


class ProtocolError(Exception):
    """The other side does not speak RFB as expected."""


async def connect(path: Path) -> tuple[StreamReader, StreamWriter]:
    """Raises OSError when nothing answers there."""
    return await asyncio.open_unix_connection(str(path))


class ViewOnly:
    """Lets through what a viewer needs to see, and drops keys, pointer, clipboard and resizing.

    It follows the viewer's bytes: version (12), security type (1), the shared flag (1), then messages. Other versions
    and security types bring greetings of other lengths, behind which keys would pass for something harmless.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Each part with its size and what it must be, if that matters.
        self._greeting: list[tuple[int, bytes | None]] = [(len(VERSION), VERSION), (1, bytes([NO_SECURITY])), (1, None)]

    def __call__(self, data: bytes) -> bytes:
        """The bytes that may pass; parts of a message wait for the rest.

        Raises:
            ProtocolError: another version or security type than the filter follows, or an unknown or oversized
                message, behind which nothing can be told apart.
        """
        self._buffer += data
        passed = bytearray()
        while self._buffer:
            size = self._greeting[0][0] if self._greeting else self._size()
            if size is None or len(self._buffer) < size:
                break
            if self._greeting:
                _, wanted = self._greeting.pop(0)
                if wanted not in (None, self._buffer[:size]):
                    raise ProtocolError(f"the viewer must speak {VERSION.decode().strip()} without a password")
                passed += self._buffer[:size]
            elif self._buffer[0] in HARMLESS:
                passed += self._buffer[:size]
            del self._buffer[:size]
        return bytes(passed)

    def _size(self) -> int | None:
        """Of the message that the buffer begins with; None while too little of it is there."""
        kind, known = self._buffer[0], len(self._buffer)
        if kind in FIXED:
            return FIXED[kind]
        if kind == SET_ENCODINGS:
            size = 4 + 4 * int.from_bytes(self._buffer[2:4], "big") if known >= 4 else None
        elif kind == CUT_TEXT:
            # A negative length marks the extended clipboard.
            size = 8 + abs(int.from_bytes(self._buffer[4:8], "big", signed=True)) if known >= 8 else None
        elif kind == FENCE:
            size = 9 + self._buffer[8] if known >= 9 else None
        elif kind == SET_DESKTOP_SIZE:
            size = 8 + 16 * self._buffer[6] if known >= 8 else None
        else:
            raise ProtocolError(f"unknown message {kind}")
        if size is not None and size > LONGEST_MESSAGE:
            raise ProtocolError(f"message of {size} bytes")
        return size


async def handshake(reader: StreamReader, writer: StreamWriter) -> tuple[int, int]:
    """Open a shared connection without a password. Returns the desktop's width and height."""
    await reader.readexactly(len(VERSION))
    writer.write(VERSION)
    (count,) = await reader.readexactly(1)
    if NO_SECURITY not in await reader.readexactly(count):
        raise ProtocolError("the VNC server wants a password")
    writer.write(bytes([NO_SECURITY]))
    if int.from_bytes(await reader.readexactly(4), "big"):
        raise ProtocolError("the VNC server refuses")
    writer.write(b"\1")
    width, height, _, name = struct.unpack(">HH16sI", await reader.readexactly(24))
    await _skip(reader, name)
    return width, height


async def _skip(reader: StreamReader, size: int) -> None:
    """Read what does not matter, a part at a time: the server says how much it is, and programs can be in its place."""
    while size:
        size -= len(await reader.readexactly(min(size, BLOCK)))


async def resize(path: Path, width: int, height: int) -> None:
    """Give the desktop this size in pixels.

    Raises:
        OSError, EOFError, ProtocolError: the server is not there, breaks off, or refuses.
    """
    reader, writer = await connect(path)
    try:
        now = await handshake(reader, writer)
        writer.write(struct.pack(">BxHi", SET_ENCODINGS, 1, DESKTOP_SIZE_EXTENDED))
        # The server takes the request only from viewers to whom it has sent its screens once.
        writer.write(struct.pack(">BBHHHH", UPDATE_REQUEST, 0, 0, 0, *now))
        screen, flags, _ = await _screens(reader, mine=False)
        writer.write(
            struct.pack(">BxHHBxIHHHHI", SET_DESKTOP_SIZE, width, height, 1, screen, 0, 0, width, height, flags)
        )
        writer.write(struct.pack(">BBHHHH", UPDATE_REQUEST, 1, 0, 0, *now))
        _, _, refused = await _screens(reader, mine=True)
        if refused:
            raise ProtocolError(f"the VNC server refuses {width} x {height} (status {refused})")
    finally:
        writer.close()


async def _screens(reader: StreamReader, *, mine: bool) -> tuple[int, int, int]:
    """Wait for the list of screens: id and flags of the first, and the status of a request.

    Args:
        mine: wait for the answer to our own request.
    """
    while True:
        (kind,) = await reader.readexactly(1)
        if kind == 2:  # bell
            continue
        if kind == 3:  # the server's clipboard
            (size,) = struct.unpack(">3xi", await reader.readexactly(7))
            await _skip(reader, abs(size))
            continue
        if kind != 0:
            raise ProtocolError(f"unexpected message {kind}")
        (rectangles,) = struct.unpack(">xH", await reader.readexactly(3))
        for _ in range(rectangles):
            origin, status, width, height, encoding = struct.unpack(">HHHHi", await reader.readexactly(12))
            if encoding != DESKTOP_SIZE_EXTENDED:
                await _skip(reader, width * height * 4)
                continue
            (screens,) = struct.unpack(">B3x", await reader.readexactly(4))
            body = await reader.readexactly(16 * screens)
            identity, flags = struct.unpack_from(">I8xI", body) if screens else (0, 0)
            if not mine or origin == 1:
                return identity, flags, status if mine else 0
