"""Resumable transfer of one large file into the cache.

The library starts a file again from nothing when its process ends; of a file of many gigabytes that is hours. So this
keeps the part that has arrived under the file's own name, and asks for the rest. The checksum is reckoned while the
bytes pass.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

from aisandbox.instance.fetch import cache
from aisandbox.instance.fetch.failures import CorruptedError, LowDiskError
from aisandbox.instance.fetch.request import Request

FREE_BYTES_KEPT = 512 * 1024**2
"""Disk space that a download must leave for everything else; it stops at half of that, should others fill the disk."""
SPACE_CHECK_BYTES = 64 * 1024**2
READ_BYTES = 1024**2


@dataclass(frozen=True)
class Blob:
    """One large file of a commit."""

    name: str
    size: int
    digest: str
    """sha256, which is also its name in the cache."""

    def path(self, repository: cache.Repository) -> Path:
        return repository.blobs / self.digest

    def partial(self, repository: cache.Repository) -> Path:
        """What has arrived of it so far."""
        return repository.blobs / f"{self.digest}.incomplete"

    def here(self, repository: cache.Repository) -> int:
        """Bytes of it on disk, whole or in part."""
        for path in (self.path(repository), self.partial(repository)):
            if path.is_file():
                return min(path.stat().st_size, self.size)
        return 0


@dataclass(frozen=True)
class Transfer:
    """Fetches large files of one commit."""

    request: Request
    commit: str
    repository: cache.Repository
    advance: Callable[[int], None]
    """Hears how many bytes have come to be on disk, less those that had to be thrown away."""
    timeout_s: float
    """Longest silence of a connection."""

    def fetch(self, blob: Blob) -> cache.Stamp:
        """Bring the file, with the right checksum, to its place.

        Raises:
            CorruptedError: it arrived damaged twice.
            LowDiskError, OSError, httpx2.HTTPError: not now; what has arrived is kept.
        """
        target = blob.path(self.repository)
        if target.is_file() and target.stat().st_size == blob.size:
            if cache.digest(target, blob.digest, self._alive) == blob.digest:
                return cache.Stamp.of(target, blob.digest)
            target.unlink()
            self.advance(-blob.size)
        elif target.is_file():  # a power cut left it short
            target.replace(blob.partial(self.repository))
        partial = blob.partial(self.repository)
        for _ in range(2):
            if self._complete(blob, partial) == blob.digest:
                partial.replace(target)
                return cache.Stamp.of(target, blob.digest)
            partial.unlink()
            self.advance(-blob.size)
        raise CorruptedError(blob.name)

    def _alive(self, count: int) -> None:
        """Show that reading what is there goes on, which takes minutes for a large file."""
        self.advance(0)

    def _complete(self, blob: Blob, partial: Path) -> str:
        """Fetch what is missing, as long as connections bring anything. Returns the checksum of the whole."""
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("r+b" if partial.exists() else "w+b", buffering=0) as file:
            checksum = cache.hasher(blob.size, blob.digest)
            buffer = memoryview(bytearray(READ_BYTES))
            while count := file.readinto(buffer):
                checksum.update(buffer[:count])
                self._alive(count)
            if file.tell() > blob.size:
                file.truncate(0)
                file.seek(0)
                checksum = cache.hasher(blob.size, blob.digest)
            while (before := file.tell()) < blob.size:
                try:
                    checksum = self._stream(blob, file, checksum)
                except httpx2.TransportError:
                    if file.tell() <= before:  # a connection that brought something may do so again
                        raise
                if file.tell() == before:
                    raise httpx2.RemoteProtocolError(f"nothing arrived of {blob.name}")
        return str(checksum.hexdigest())

    def _stream(self, blob: Blob, file: Any, checksum: Any) -> Any:
        """Append what one connection brings. Returns the running checksum."""
        request = self.request
        url = hf_hub_url(request.model, blob.name, revision=self.commit, endpoint=request.endpoint)
        token = request.token or False
        found = get_hf_file_metadata(url, token=token, timeout=self.timeout_s, endpoint=request.endpoint)
        # The token is for the hub alone: the addresses that it sends to are signed.
        own = httpx2.URL(found.location).netloc == httpx2.URL(request.address).netloc
        headers = build_hf_headers(token=token if own else False)
        start = file.tell()
        headers |= {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
        unchecked = SPACE_CHECK_BYTES
        with get_session().stream("GET", found.location, headers=headers, timeout=self.timeout_s) as response:
            hf_raise_for_status(response)
            if start and response.status_code == httpx2.codes.OK:  # the server does not know ranges
                file.seek(0)
                file.truncate()
                checksum = cache.hasher(blob.size, blob.digest)
                self.advance(-start)
            for chunk in _body(response, self.timeout_s):
                _write(file, chunk)
                checksum.update(chunk)
                self.advance(len(chunk))
                unchecked += len(chunk)
                if unchecked >= SPACE_CHECK_BYTES:
                    unchecked = 0
                    free = shutil.disk_usage(self.repository.path).free
                    if free < FREE_BYTES_KEPT // 2:
                        raise LowDiskError(blob.size - file.tell(), free)
                if file.tell() > blob.size:
                    break
        return checksum


def _body(response: httpx2.Response, timeout_s: float) -> Iterator[bytes]:
    """The response's body, as it comes from the network.

    What follows the first piece is read from the connection itself: a parser of HTTP has nothing to say about it, and
    would copy each byte several times.

    Raises:
        httpx2.TransportError: the connection broke off.
    """
    pieces = response.iter_raw()
    stream = response.extensions.get("network_stream")
    length = response.headers.get("Content-Length", "")
    if stream is None or not length.isdigit():
        yield from pieces
        return
    first = next(pieces, b"")
    yield first
    left = int(length) - len(first)
    while left > 0:
        try:
            piece = stream.read(min(left, READ_BYTES), timeout_s)
        except httpcore2.TimeoutException as error:
            raise httpx2.ReadTimeout(str(error)) from error
        except httpcore2.NetworkError as error:
            raise httpx2.ReadError(str(error)) from error
        if not piece:
            raise httpx2.RemoteProtocolError(f"it ended {left} bytes too early")
        left -= len(piece)
        yield piece


def _write(file: RawIOBase, data: bytes) -> None:
    """Write all of it: the last blocks of a full disk take a part without an error."""
    while written := file.write(data) or 0:
        if written == len(data):
            return
        data = data[written:]
