"""ZIP archives, streamed while they are created: neither disk nor memory holds a whole one."""

from __future__ import annotations

import asyncio
import os
import stat
import zipfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path, PurePath
from urllib.parse import quote

from anyio import to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox_api import privileges
from sandbox_api.errors import SandboxError
from sandbox_api.file.download import disconnected
from sandbox_api.file.failures import shown
from sandbox_api.file.folder import opened
from sandbox_api.file.tree import Budget, walk
from sandbox_api.paths import Confinement

BLOCK = 2**20
MOST_FILES = 100_000


class _Sink:
    """What `zipfile` writes to. It cannot seek, so sizes follow their file in the archive."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


class Archive(Response):
    """Args: files: what goes in, by its name in the archive."""

    media_type = "application/zip"

    def __init__(self, paths: Confinement, files: dict[str, Path], name: str) -> None:
        self._blocks = _zipped(paths, files)
        plain = f'filename="{name}"' if quote(name) == name else f"filename*=utf-8''{quote(name)}"
        super().__init__(None, headers={"content-disposition": f"attachment; {plain}"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            with closing(self._blocks):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                # If a file cannot be read, the exception breaks the connection: half an archive must not pass for one.
                while (block := await to_thread.run_sync(next, self._blocks, None)) is not None:
                    if gone.done():
                        return
                    if block:
                        await send({"type": "http.response.body", "body": block, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()


def prepare(paths: Confinement, wanted: Sequence[str], seconds: float) -> Archive:
    """The archive of files and folders. Links are skipped: their target is not part of what was asked for.

    Names are relative to the folder that holds all of them, so that no two files collide.

    Raises:
        SandboxError: `too_large` if there are more files than an archive takes; `permission_denied`.
        OSError: one of the paths is not there.
    """
    real = [paths.resolve(path) for path in wanted]
    base = Path(os.path.commonpath([path.parent for path in real]))
    files: dict[str, Path] = {}
    for path in real:
        for file in _regular_files(path, Budget(seconds)):
            if not privileges.may(file, os.R_OK):  # once the answer has begun, it is too late to say so
                raise SandboxError("permission_denied", f"permission denied: {shown(file)}")
            name = shown(PurePath(file).relative_to(base))
            while name in files:  # of names that are not UTF-8, several are shown alike
                name += "_"
            files[name] = Path(file)
            if len(files) > MOST_FILES:
                raise _too_large()
    name = f"{shown(real[0].name) or 'files'}.zip" if len(real) == 1 else "files.zip"
    return Archive(paths, files, name)


def _too_large() -> SandboxError:
    message = f"an archive has at most {MOST_FILES} files"
    return SandboxError("too_large", message, hint="Choose a folder with fewer files, or run zip or tar.")


def _regular_files(path: Path, budget: Budget) -> Iterator[str]:
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        yield str(path)
    elif stat.S_ISDIR(mode):
        for entry, _ in walk(str(path), budget, lambda _, __: True):
            if entry.is_file(follow_symlinks=False):
                yield entry.path
        if budget.spent:
            raise _too_large()


def _zipped(paths: Confinement, files: dict[str, Path]) -> Generator[bytes]:
    """The archive in blocks. A block is empty if the compressor has not produced output yet."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        for name, path in files.items():
            # A file may be deleted while those before it are sent.
            with suppress(FileNotFoundError), opened(paths, path) as source:
                # Dates before 1980 cannot be written in a ZIP: they become its first one.
                about = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
                about.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(about, "w", force_zip64=True) as target:
                    while block := source.read(BLOCK):
                        target.write(block)
                        yield sink.take()
    yield sink.take()
