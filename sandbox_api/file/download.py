"""Sending files: streamed, in whole or in part."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox_api.errors import SandboxError
from sandbox_api.file.conditions import etag, http_date, names, seconds
from sandbox_api.file.failures import shown
from sandbox_api.file.folder import opened
from sandbox_api.paths import Confinement

BLOCK = 2**20
# What a browser may show on our own origin: nothing of it runs scripts.
SHOWABLE = re.compile(r"image/(png|jpeg|gif|webp|avif|bmp|x-icon|vnd\.microsoft\.icon)|audio/.+|video/.+")


class Download(Response):
    """An open file, from `start` on. If it shrinks, or must not change and does, the connection is broken off.

    Args:
        stack: closes the file.
        watched: path whose file must stay as it was when it was opened.
    """

    def __init__(
        self,
        stream: IO[bytes],
        stack: ExitStack,
        span: range,
        status: int,
        headers: Mapping[str, str],
        watched: Path | None,
    ) -> None:
        self.stream, self.stack, self.span, self.watched = stream, stack, span, watched
        self.opened_as = _state(os.fstat(stream.fileno()))
        super().__init__(None, status, headers)
        self.headers["content-length"] = str(len(span))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        reading: asyncio.Future[bytes] | None = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            left = len(self.span)
            if left:
                reading = self._read(left)
            while left and reading and not gone.done():
                block = await reading
                left -= len(block)
                if not block or self.watched and await to_thread.run_sync(self._changed):
                    return  # without an end: the server cuts the connection, so that it is not taken for the whole
                # The next block is read while this one is sent.
                reading = self._read(left) if left else None
                await send({"type": "http.response.body", "body": block, "more_body": bool(left)})
            if not self.span:
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            if reading:
                with suppress(OSError):
                    await asyncio.shield(reading)
            self.stack.close()

    def _read(self, left: int) -> asyncio.Future[bytes]:
        return asyncio.ensure_future(to_thread.run_sync(self.stream.read, min(left, BLOCK)))

    def _changed(self) -> bool:
        assert self.watched is not None
        try:
            return _state(os.lstat(self.watched)) != self.opened_as
        except OSError:
            return True


async def disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def prepare(
    paths: Confinement, path: str, headers: Headers, policy: Literal["ignore", "abort"], *, inline: bool
) -> Response:
    """The answer to a request for a file.

    Raises:
        SandboxError: also `range_not_satisfiable` and, with the policy `abort`, `file_changed_meanwhile`.
    """
    real = paths.resolve(path)
    with ExitStack() as stack:
        stream = stack.enter_context(opened(paths, real))
        found = os.fstat(stream.fileno())
        if policy == "abort" and _state(os.lstat(real)) != _state(found):
            raise SandboxError("conflict", f"the file changed while it was opened: {path}")
        tag, date = etag(found), http_date(found)
        answer = {"etag": tag, "last-modified": date, "accept-ranges": "bytes", "cache-control": "no-cache"}
        if _known(headers, tag, found):
            return Response(None, 304, answer)
        answer |= _presentation(real, inline=inline)
        span = _span(headers, tag, date, found.st_size, path)
        if span is not None:
            answer["content-range"] = f"bytes {span.start}-{span.stop - 1}/{found.st_size}"
            os.lseek(stream.fileno(), span.start, os.SEEK_SET)
        whole = range(found.st_size)
        watched = real if policy == "abort" else None
        status = 200 if span is None else 206
        return Download(stream, stack.pop_all(), whole if span is None else span, status, answer, watched)


def _presentation(real: Path, *, inline: bool) -> dict[str, str]:
    name = shown(real.name)
    plain = re.sub(r'[^ !#-\[\]-~]|[%"\\]', "_", name)
    guessed = mimetypes.guess_type(name)[0] or ""
    if inline and SHOWABLE.fullmatch(guessed):
        kind, form = "inline", guessed
    elif inline and guessed.startswith("text/"):
        kind, form = "inline", "text/plain; charset=utf-8"
    else:
        kind, form = "attachment", "application/octet-stream"
    exact = quote(os.fsencode(real.name), safe="")
    return {
        "content-type": form,
        "content-disposition": f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{exact}",
        # A file of the sandbox is no page of ours: it must not act as one.
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
    }


def _known(headers: Headers, tag: str, found: os.stat_result) -> bool:
    """Whether the caller has the file already."""
    if (header := headers.get("if-none-match")) is not None:
        return header.strip() == "*" or tag.strip('"') in names(header)
    since = headers.get("if-modified-since")
    return since is not None and int(found.st_mtime) <= (seconds(since) or 0)


def _span(headers: Headers, tag: str, date: str, size: int, path: str) -> range | None:
    """The part that is asked for; None for the whole, also if several parts are asked for."""
    match = re.fullmatch(r"bytes=(\d{0,20})-(\d{0,20})", headers.get("range", "").replace(" ", ""))
    if match is None or match.groups() == ("", "") or headers.get("if-range", tag) not in (tag, date):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= size or stop <= start:
        raise SandboxError("range_not_satisfiable", f"the file has {size} bytes: {path}", data={"size": size})
    return range(start, stop)
