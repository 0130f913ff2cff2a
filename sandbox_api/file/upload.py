"""Receiving files: from the network to the disk without keeping them in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

from anyio import to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from sandbox_api.errors import SandboxError
from sandbox_api.file.body import BLOCK, Body
from sandbox_api.file.conditions import NONE, Precondition, etag
from sandbox_api.file.failures import translate_os_errors
from sandbox_api.file.files import Files
from sandbox_api.file.folder import Draft, draft, parent_of
from sandbox_api.file.models import UploadResult
from sandbox_api.protocol import Protocol

LONGEST_FIELD = 8192
MOST_PARTS = 20

Part = tuple[str, bytes]
"""("field", name), ("file", file name) or ("data", content)."""


class Uploads:
    """Args: most_bytes: largest upload."""

    def __init__(self, files: Files, most_bytes: int) -> None:
        self._files = files
        self._most_bytes = most_bytes

    async def content(
        self,
        path: str,
        chunks: AsyncIterator[bytes],
        announced: int | None,
        condition: Precondition,
        protocol: Protocol | None = None,
    ) -> UploadResult:
        """A raw body becomes the file.

        Args:
            protocol: that receives it, if the rest of a large body may be taken from there.
        """
        with translate_os_errors("upload", path), ExitStack() as stack:
            self._check(announced or 0)
            real = await to_thread.run_sync(self._files.paths.resolve, path)
            started = await to_thread.run_sync(self._start, real, stack)
            if protocol and announced and announced > BLOCK:
                # The client may wait for a sign before it sends the body: the first chunk is asked for as usual.
                await to_thread.run_sync(started.write, await anext(chunks, b""))
                await Body(protocol, announced).save(started.write)
            else:
                await self._receive(chunks, started)
            return await self._finish(started, real, path, condition)

    async def form(
        self,
        content_type: str,
        chunks: AsyncIterator[bytes],
        announced: int | None,
        condition: Precondition = NONE,
        *,
        folder: str | None = None,
    ) -> UploadResult:
        """A multipart form with `file` and, before or after it, `path`.

        `path` is the file's path, or an existing folder or ends with a slash. Without it the file keeps its own name
        and goes to `folder`, or to the workspace.
        """
        with translate_os_errors("upload", ""):
            self._check(announced or 0, LONGEST_FIELD * MOST_PARTS)
            kind, options = parse_options_header(content_type)
            if kind != b"multipart/form-data" or b"boundary" not in options:
                raise SandboxError("unsupported_media_type", "an upload is a multipart/form-data form")
            parts = _parts(options[b"boundary"], chunks)
        with ExitStack() as stack:
            return await self._form(parts, stack, condition, folder)

    async def _form(
        self, parts: AsyncIterator[Part], stack: ExitStack, condition: Precondition, folder: str | None
    ) -> UploadResult:
        fields: dict[str, bytes] = {}
        started: Draft | None = None
        after: Part | None = None
        field = name = ""

        async def contents() -> AsyncIterator[bytes]:
            nonlocal after
            async for kind, value in parts:
                if kind != "data":
                    after = (kind, value)
                    return
                yield value

        with translate_os_errors("upload", ""):
            while (part := after or await anext(parts, None)) is not None:
                after = None
                kind, value = part
                if kind == "field":
                    field = value.decode("utf-8", "replace")
                    fields[field] = b""
                elif kind == "data":
                    fields[field] += value
                    if len(fields[field]) > LONGEST_FIELD:
                        raise SandboxError("too_large", f"the field {field} has more than {LONGEST_FIELD} bytes")
                elif started is not None:
                    raise SandboxError("invalid_request", "one upload carries one file")
                else:
                    name = value.decode("utf-8", "replace")
                    place = await to_thread.run_sync(self._target, fields.get("path", b""), name, folder)
                    started = await to_thread.run_sync(self._start, self._files.paths.resolve(place), stack)
                    await self._receive(contents(), started)
            if started is None:
                raise SandboxError("invalid_request", "file: the form has no such field")
        path = await to_thread.run_sync(self._target, fields.get("path", b""), name, folder)
        with translate_os_errors("upload", path):
            return await self._finish(started, self._files.paths.resolve(path), path, condition)

    def _check(self, size: int, besides: int = 0) -> None:
        if size > self._most_bytes + besides:
            message = f"the upload has more than {self._most_bytes} bytes (SANDBOX_UPLOAD_BYTES)"
            raise SandboxError("too_large", message)

    def _target(self, path: bytes, name: str, folder: str | None) -> str:
        wanted = path.decode("utf-8", "replace")
        if wanted and not wanted.endswith("/") and not self._files.paths.resolve(wanted).is_dir():
            return wanted
        # A name may come with folders of another machine; only its last part is ours.
        own = name.replace("\\", "/").rsplit("/", 1)[-1]
        if own in ("", ".", ".."):
            raise SandboxError("invalid_request", "the file has no name: give path")
        return str(Path(wanted or folder or self._files.paths.workspace) / own)

    def _start(self, real: Path, stack: ExitStack) -> Draft:
        if real in self._files.paths.roots:
            raise SandboxError("not_a_file", f"it is a folder: {real}")
        return stack.enter_context(draft(stack.enter_context(parent_of(self._files.paths, real, create=True))))

    async def _receive(self, chunks: AsyncIterator[bytes], started: Draft) -> None:
        """Receives one block while the one before is written."""
        block: list[bytes] = []
        received = gathered = 0
        writing: asyncio.Future[None] | None = None
        try:
            async for chunk in chunks:
                received += len(chunk)
                self._check(received)
                block.append(chunk)
                gathered += len(chunk)
                if gathered >= BLOCK:
                    if writing:
                        await writing
                    writing = asyncio.ensure_future(to_thread.run_sync(started.write, *block))
                    block, gathered = [], 0
        finally:
            # The file must not be closed while a thread writes to it.
            if writing:
                await asyncio.shield(writing)
        await to_thread.run_sync(started.write, *block)

    async def _finish(self, started: Draft, real: Path, path: str, condition: Precondition) -> UploadResult:
        def commit() -> UploadResult:
            created, found = self._files.commit(started, real, condition, create=True)
            return UploadResult(file_path=path, file_size=found.st_size, etag=etag(found), created=created)

        return await to_thread.run_sync(commit)


async def _parts(boundary: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[Part]:
    """The parts of a form, as they come in.

    Raises:
        SandboxError: `invalid_request` if it is malformed.
    """
    found: list[Part] = []
    headers: dict[bytes, bytes] = {}
    name, value = bytearray(), bytearray()
    count = 0

    def header_end() -> None:
        headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def headers_finished() -> None:
        nonlocal count
        count += 1
        _, options = parse_options_header(headers.get(b"content-disposition", b""))
        field, file = options.get(b"name", b""), options.get(b"filename")
        headers.clear()
        found.append(("field", field) if file is None else ("file", file))

    parser = MultipartParser(
        boundary,
        {
            "on_header_field": lambda data, start, end: name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: value.extend(data[start:end]),
            "on_header_end": header_end,
            "on_headers_finished": headers_finished,
            "on_part_data": lambda data, start, end: found.append(("data", data[start:end])),
        },
    )
    try:
        async for chunk in chunks:
            parser.write(chunk)
            if count > MOST_PARTS:
                raise SandboxError("invalid_request", f"the form has more than {MOST_PARTS} parts")
            for part in found:
                yield part
            found.clear()
        parser.finalize()
    except MultipartParseError as error:
        raise SandboxError("invalid_request", f"the form is malformed: {error}") from error
