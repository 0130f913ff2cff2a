"""Files, for routes and for the other capabilities."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal, TypeVar

from anyio import CapacityLimiter, to_thread
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response

from sandbox_api.environment import child_environment
from sandbox_api.errors import SandboxError
from sandbox_api.file import archive, download, models, tree
from sandbox_api.file.conditions import NONE, Precondition
from sandbox_api.file.editor import Editor
from sandbox_api.file.failures import translate_os_errors
from sandbox_api.file.files import Files
from sandbox_api.file.search import Searches
from sandbox_api.file.sweep import sweep
from sandbox_api.file.tree import Budget
from sandbox_api.file.upload import Uploads
from sandbox_api.file.watch import Watchers
from sandbox_api.health import Health
from sandbox_api.paths import Confinement
from sandbox_api.protocol import Protocol
from sandbox_api.settings import Settings

SEARCHES_AT_ONCE = 4
EXCERPT_LINES = 2000
GIB = 2**30

Model = TypeVar("Model", bound=models.Request)
Result = TypeVar("Result")


def _request(model: type[Model], **values: Any) -> Model:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SandboxError("invalid_request", f"{place}: {first['msg']}") from error


class FileService:
    """All methods take absolute paths and plain values; `**options` are the further fields of the request model that
    the method names. Failures are `SandboxError`s whose `data` tells operation, path and errno."""

    def __init__(self, settings: Settings, paths: Confinement) -> None:
        self._paths = paths
        self._seconds = settings.search_timeout_s
        self._most_chars = settings.answer_output_chars
        self._files = Files(paths, settings.read_bytes)
        self._editor = Editor(self._files, settings.answer_output_chars, settings.search_timeout_s)
        self._searches = Searches(child_environment(settings), settings.search_timeout_s, settings.read_bytes)
        self.uploads = Uploads(self._files, settings.upload_bytes)
        self.watchers = Watchers(settings.max_watchers, settings.session_idle_s)
        self._searching = CapacityLimiter(SEARCHES_AT_ONCE)

    async def start(self) -> None:
        self._sweep = Budget(self._seconds)
        self._sweeping = asyncio.create_task(to_thread.run_sync(sweep, self._paths, self._sweep))

    async def stop(self) -> None:
        self._sweep.spent = True
        await self._sweeping
        self._searches.stop()
        self.watchers.stop()

    async def health(self) -> Health:
        try:
            disk = await to_thread.run_sync(shutil.disk_usage, self._paths.workspace)
            free, kept = await to_thread.run_sync(self._paths.reserve.of, self._paths.workspace)
        except OSError as error:
            return Health(status="failed", detail=f"the workspace cannot be used: {error.strerror}")
        detail = f"{disk.free / GIB:.1f} GiB free of {disk.total / GIB:.1f} GiB"
        if free < kept:
            detail += f"; nothing is written while less than {kept / GIB:.1f} GiB are free (SANDBOX_DISK_RESERVE_BYTES)"
        return Health(status="ready", detail=detail)

    async def _run(
        self, operation: str, path: str, work: Callable[[], Result], limiter: CapacityLimiter | None = None
    ) -> Result:
        with translate_os_errors(operation, path):
            return await to_thread.run_sync(work, limiter=limiter)

    async def read(
        self,
        path: str,
        *,
        start_line: int | None = None,
        end_line: int | None = None,
        start_byte: int | None = None,
        end_byte: int | None = None,
        encoding: Literal["utf-8", "base64"] = "utf-8",
    ) -> models.ReadResult:
        """Lines and bytes count from 0; ends are exclusive."""
        request = _request(
            models.ReadRequest, file=path, start_line=start_line, end_line=end_line, start_byte=start_byte,
            end_byte=end_byte, encoding=encoding,
        )  # fmt: skip
        return await self._run("read", path, lambda: self._files.read(request))

    async def excerpt(self, path: str, *, first_line: int = 1, line_count: int = EXCERPT_LINES) -> models.Excerpt:
        """Lines from 1, cut at the length of an answer (SANDBOX_ANSWER_OUTPUT_CHARS)."""
        start = first_line - 1
        # One more, to know whether the file goes on.
        read = await self.read(path, start_line=start, end_line=start + line_count + 1)
        there = line_count + 1 if read.total_lines is None else max(0, read.total_lines - start)
        lines, omitted = read.content.split("\n")[: min(there, line_count)], 0
        content = "\n".join(lines)
        if len(content) > self._most_chars:
            content = content[: self._most_chars]
            whole = content.split("\n")[:-1]
            # Whole lines, unless already the first one is too long.
            omitted = 0 if whole else len(lines[0]) - len(content)
            lines = whole or [content]
        return models.Excerpt(
            path=read.file, content="\n".join(lines), size=read.size, first_line=first_line,
            last_line=start + len(lines), total_lines=read.total_lines, more=len(lines) < there, omitted_chars=omitted,
        )  # fmt: skip

    async def write(
        self, path: str, content: str, *, condition: Precondition = NONE, **options: Any
    ) -> models.WriteResult:
        """Args: options: fields of `WriteRequest`, such as encoding, append, create_parents."""
        request = _request(models.WriteRequest, file=path, content=content, **options)
        return await self._run("write", path, lambda: self._files.write(request, condition))

    async def replace(
        self, path: str, old_str: str, new_str: str, *, condition: Precondition = NONE
    ) -> tuple[models.ReplaceResult, str | None]:
        """Returns: the result, and a hint if the text does not occur."""
        request = _request(models.ReplaceRequest, file=path, old_str=old_str, new_str=new_str)
        return await self._run("replace", path, lambda: self._files.replace(request, condition))

    async def stat(self, path: str, *, follow: bool = True) -> models.StatResult:
        request = _request(models.StatRequest, path=path, follow=follow)
        return await self._run("stat", path, lambda: self._files.stat(request))

    async def mkdir(self, path: str, **options: Any) -> models.PathResult:
        """Args: options: fields of `MkdirRequest`."""
        request = _request(models.MkdirRequest, path=path, **options)
        return await self._run("mkdir", path, lambda: self._files.mkdir(request))

    async def move(self, source: str, destination: str, *, overwrite: bool = False) -> models.MoveResult:
        request = _request(models.MoveRequest, source=source, destination=destination, overwrite=overwrite)
        return await self._run("move", source, lambda: self._files.move(request))

    async def copy(self, source: str, destination: str, *, overwrite: bool = False) -> models.MoveResult:
        request = _request(models.MoveRequest, source=source, destination=destination, overwrite=overwrite)
        return await self._run("copy", source, lambda: self._files.copy(request))

    async def delete(
        self, path: str, *, recursive: bool = False, condition: Precondition = NONE
    ) -> models.DeleteResult:
        request = _request(models.DeleteRequest, path=path, recursive=recursive)
        return await self._run("delete", path, lambda: self._files.delete(request, condition))

    async def list(self, path: str, **options: Any) -> models.ListResult:
        """Args: options: fields of `ListRequest`."""
        request = _request(models.ListRequest, path=path, **options)
        return await self._run(
            "list", path, lambda: tree.list_folder(self._paths.resolve(path), request, self._seconds), self._searching
        )

    async def find(self, path: str, glob: str, **options: Any) -> models.FindResult:
        """Args: options: fields of `FindRequest`."""
        request = _request(models.FindRequest, path=path, glob=glob, **options)
        return await self._run(
            "find", path, lambda: tree.find(self._paths.resolve(path), request, self._seconds), self._searching
        )

    async def glob(self, path: str, pattern: str, **options: Any) -> models.GlobResult:
        """Args: options: fields of `GlobRequest`."""
        request = _request(models.GlobRequest, path=path, pattern=pattern, **options)
        return await self._run(
            "glob", path, lambda: tree.glob(self._paths.resolve(path), request, self._seconds), self._searching
        )

    async def grep(self, path: str, pattern: str, **options: Any) -> models.GrepResult:
        """Args: options: fields of `GrepRequest`."""
        request = _request(models.GrepRequest, path=path, pattern=pattern, **options)

        def work() -> models.GrepResult:
            real = self._paths.resolve(path)
            if not real.is_dir():
                self._files.stat_file(real)
            return self._searches.grep(real, request)

        return await self._run("grep", path, work, self._searching)

    async def search(self, path: str, regex: str, **options: Any) -> models.SearchResult:
        """Args: options: fields of `SearchRequest`."""
        request = _request(models.SearchRequest, file=path, regex=regex, **options)

        def work() -> models.SearchResult:
            real = self._paths.resolve(path)
            self._files.stat_file(real)
            return self._searches.in_file(real, request)

        return await self._run("search", path, work, self._searching)

    async def edit(self, command: str, path: str, **options: Any) -> models.EditorResult:
        """Args: options: fields of `EditorRequest`."""
        request = _request(models.EditorRequest, command=command, path=path, **options)
        return await self._run("str_replace_editor", path, lambda: self._editor.run(request))

    async def upload(
        self,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        size: int | None = None,
        condition: Precondition = NONE,
        protocol: Protocol | None = None,
    ) -> models.UploadResult:
        """
        Args:
            size: bytes that will come, if known.
            protocol: as for `Uploads.content`.
        """
        return await self.uploads.content(path, chunks, size, condition, protocol)

    async def download(
        self, path: str, headers: Headers, policy: Literal["ignore", "abort"] = "ignore", *, inline: bool = False
    ) -> Response:
        return await self._run(
            "download", path, lambda: download.prepare(self._paths, path, headers, policy, inline=inline)
        )

    async def archive(self, paths: Sequence[str]) -> Response:
        """Files and folders as one ZIP."""
        return await self._run(
            "archive", paths[0], lambda: archive.prepare(self._paths, paths, self._seconds), self._searching
        )

    async def watch(self, path: str, **options: Any) -> models.WatchInfo:
        """Args: options: fields of `WatchRequest`."""
        request = _request(models.WatchRequest, path=path, **options)
        with translate_os_errors("watch", path):
            return await self.watchers.create(self._paths.resolve(path), request)

    async def wait(self, path: str, **options: Any) -> models.WaitResult:
        """Args: options: fields of `WaitRequest`."""
        request = _request(models.WaitRequest, path=path, **options)
        with translate_os_errors("watch", path):
            return await self.watchers.wait(self._paths.resolve(path), request)
