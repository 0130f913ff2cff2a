"""VNC: what viewers send to the filter of those who only look, and what a server sends to us."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

from hypothesis import strategies as st

from sandbox_api.desktop import rfb
from sandbox_api.desktop.rfb import ProtocolError, ViewOnly
from tests.fuzz.search import Property

GREETING = rfb.VERSION + bytes([rfb.NO_SECURITY, 1])
MOST_BYTES = 2**20
"""Of the server's, that are held at once."""


def _fixed(kind: int) -> st.SearchStrategy[bytes]:
    size = rfb.FIXED[kind] - 1
    return st.binary(min_size=size, max_size=size).map(lambda rest: bytes([kind]) + rest)


def _counted(head: str, kind: int, unit: int, most: int) -> st.SearchStrategy[bytes]:
    """A message whose head ends in the number of units that follow."""
    return st.integers(0, most).flatmap(
        lambda count: st.binary(min_size=count * unit, max_size=count * unit).map(
            lambda rest: struct.pack(head, kind, count) + rest
        )
    )


SEEN = st.one_of(
    *(_fixed(kind) for kind in rfb.FIXED if kind in rfb.HARMLESS),
    _counted(">BxH", rfb.SET_ENCODINGS, 4, 8),
    _counted(">B7xB", rfb.FENCE, 1, 64),
)
DROPPED = st.one_of(
    *(_fixed(kind) for kind in rfb.FIXED if kind not in rfb.HARMLESS),
    _counted(">B3xi", rfb.CUT_TEXT, 1, 40),
    _counted(">B3xi", rfb.CUT_TEXT, 1, 40).map(lambda text: text[:4] + struct.pack(">i", 8 - len(text)) + text[8:]),
    _counted(">B5xBx", rfb.SET_DESKTOP_SIZE, 16, 3),
)
CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def _pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    found, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return found


def only_looking_passes(messages: list[tuple[bool, bytes]], sizes: list[int]) -> None:
    """However the bytes are cut, what may pass does, and nothing else."""
    passes = ViewOnly()
    data = GREETING + b"".join(message for _, message in messages)
    passed = b"".join(map(passes, _pieces(data, sizes)))
    assert passed == GREETING + b"".join(message for harmless, message in messages if harmless)


def any_bytes_are_followed(data: bytes, sizes: list[int], greeted: bool) -> None:
    """What passed passes again: no other filter would see a key in it."""
    passes, passed = ViewOnly(), b""
    try:
        for piece in _pieces(GREETING + data if greeted else data, sizes):
            passed += passes(piece)
    except ProtocolError:
        pass
    assert ViewOnly()(passed) == passed


class _Reader(asyncio.StreamReader):
    async def readexactly(self, n: int) -> bytes:
        assert n <= MOST_BYTES, f"{n} bytes of the server's would be held at once"
        return await super().readexactly(n)


class _Writer:
    def write(self, data: bytes) -> None: ...


def the_server_is_not_believed(data: bytes, greeted: bool, mine: bool) -> None:
    """It ends in an answer, in the end of what the server sends, or in a refusal."""

    async def speak() -> None:
        reader = _Reader()
        reader.feed_data(data)
        reader.feed_eof()
        try:
            if greeted:
                await rfb._screens(reader, mine=mine)
            else:
                await rfb.handshake(reader, cast(Any, _Writer()))
        except (EOFError, ProtocolError):
            pass

    asyncio.run(speak())


KIND = st.sampled_from([*rfb.FIXED, rfb.SET_ENCODINGS, rfb.CUT_TEXT, rfb.FENCE, rfb.SET_DESKTOP_SIZE, 1, 7]).map(
    lambda kind: bytes([kind])
)
HELLO = rfb.VERSION + b"\1\1" + bytes(4)
LARGE = st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\x20\0\0"])
RECTANGLE = st.tuples(st.binary(min_size=8, max_size=8), st.sampled_from([-308, 0, 7])).map(
    lambda parts: parts[0] + struct.pack(">i", parts[1])
)
SERVER = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.just(HELLO),
        st.just(bytes(20)),
        LARGE,
        st.just(b"\2"),
        LARGE.map(lambda size: b"\3\0\0\0" + size),
        st.lists(RECTANGLE, max_size=3).map(lambda found: struct.pack(">BxH", 0, len(found)) + b"".join(found)),
    ),
    max_size=6,
).map(b"".join)

PROPERTIES = (
    Property(
        only_looking_passes,
        {
            "messages": st.lists(st.tuples(st.just(True), SEEN) | st.tuples(st.just(False), DROPPED), max_size=8),
            "sizes": CUTS,
        },
    ),
    Property(
        any_bytes_are_followed,
        {"data": st.lists(KIND | st.binary(max_size=12), max_size=8).map(b"".join), "sizes": CUTS,
         "greeted": st.booleans()},
    ),
    Property(
        the_server_is_not_believed,
        {"data": SERVER | SERVER.map(lambda data: HELLO + data), "greeted": st.booleans(), "mine": st.booleans()},
    ),
)  # fmt: skip
