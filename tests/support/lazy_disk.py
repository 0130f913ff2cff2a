"""A disk that is filled when it is first touched, as a volume from a cloud's snapshot: a server of block devices (NBD).

The first request for each block waits; others for the same block wait with it, and those for other blocks do not. QEMU
can delay every request of a disk (`throttling.*`), but not the first one for a block alone.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

OPTION, REPLY, REQUEST, ANSWER = 0x49484156454F5054, 0x0003E889045565A9, 0x25609513, 0x67446698
GO, READ, DISCONNECT = 7, 0, 2
ACKNOWLEDGED, EXPORT, UNSUPPORTED = 1, 3, 0x80000001
FIXED, READ_ONLY = 1, 0b11
READERS = 64


class LazyDisk:
    """Serves a file, read-only.

    Args:
        block: bytes that are fetched at once.
        delay: seconds that it takes.
    """

    def __init__(self, file: Path, block: int, delay: float) -> None:
        self._file = os.open(file, os.O_RDONLY)
        self.size = file.stat().st_size
        self._block, self._delay = block, delay
        self._fetched: dict[int, threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def fetched(self) -> int:
        """Blocks that were touched so far."""
        return len(self._fetched)

    def read(self, offset: int, length: int) -> bytes:
        for number in range(offset // self._block, (offset + length - 1) // self._block + 1):
            with self._lock:
                mine = number not in self._fetched
                there = self._fetched.setdefault(number, threading.Event())
            if mine:
                time.sleep(self._delay)
                there.set()
            there.wait()
        return os.pread(self._file, length, offset)

    def close(self) -> None:
        os.close(self._file)


@contextmanager
def serving(disk: LazyDisk, path: Path) -> Iterator[str]:
    """Serve the disk to one client after the other; gives what QEMU knows it by."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        threading.Thread(target=_accept, args=(server, disk), daemon=True).start()
        yield f"nbd:unix:{path}"
        server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, disk: LazyDisk) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            try:
                if _greet(client, disk.size):
                    _serve(client, disk)
            except (OSError, EOFError):
                continue


def _take(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = client.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _greet(client: socket.socket, size: int) -> bool:
    """Settle what is served; False where the client wants something else."""
    client.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTION, FIXED))
    _take(client, 4)
    while True:
        _, option, length = struct.unpack(">QII", _take(client, 16))
        _take(client, length)
        if option != GO:
            client.sendall(struct.pack(">QIII", REPLY, option, UNSUPPORTED, 0))
            continue
        facts = struct.pack(">HQH", 0, size, READ_ONLY)
        client.sendall(struct.pack(">QIII", REPLY, option, EXPORT, len(facts)) + facts)
        client.sendall(struct.pack(">QIII", REPLY, option, ACKNOWLEDGED, 0))
        return True


def _serve(client: socket.socket, disk: LazyDisk) -> None:
    sending = threading.Lock()

    def answer(handle: int, offset: int, length: int) -> None:
        data = disk.read(offset, length)
        with sending:
            client.sendall(struct.pack(">IIQ", ANSWER, 0, handle) + data)

    with ThreadPoolExecutor(READERS) as readers:
        while True:
            _, _, kind, handle, offset, length = struct.unpack(">IHHQQI", _take(client, 28))
            if kind == DISCONNECT:
                return
            if kind == READ:
                readers.submit(answer, handle, offset, length)
            else:
                client.sendall(struct.pack(">IIQ", ANSWER, 0, handle))
