"""Files."""

from __future__ import annotations

import base64
import mimetypes
from typing import Annotated

from pydantic import BaseModel, Field, PrivateAttr

from sandbox_api.errors import SandboxError
from sandbox_api.file.service import EXCERPT_LINES, FileService
from sandbox_api.mcp.registry import Picture, Result

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
LARGEST_PICTURE = 5 * 2**20
"""Bytes; models take no larger ones."""

Path = Annotated[str, Field(description="Absolute path.", max_length=4096)]
Folder = Annotated[str | None, Field(description="Absolute folder [the workspace].", max_length=4096)]


class FileContent(Result):
    path: str
    content: str = Field("", description="Lines; the last one without its line end.")
    size: int = Field(description="Bytes of the whole file.")
    first_line: int = 1
    last_line: int = 0
    total_lines: int | None = Field(None, description="Lines of the file, when its end was read.")
    more: bool = Field(False, description="Whether the file goes on after last_line.")
    omitted_chars: int = Field(0, description="Characters of last_line that were cut off.")
    _picture: Picture | None = PrivateAttr(None)

    def words(self) -> str:
        if self._picture:
            return f"[{self.path}: picture, {self.size} bytes]"
        notes = [self.content]
        if self.omitted_chars:
            notes.append(f"[line {self.last_line} has {self.omitted_chars} more characters]")
        if self.more:
            notes.append(f"[lines {self.first_line} to {self.last_line}; read on with first_line {self.last_line + 1}]")
        return "\n".join(notes)

    def pictures(self) -> list[Picture]:
        return [self._picture] if self._picture else []


class Written(Result):
    path: str
    size: int = Field(description="Bytes of the file now.")
    created: bool

    def words(self) -> str:
        return f"{'Created' if self.created else 'Wrote'} {self.path} ({self.size} bytes)."


class Edited(Result):
    path: str
    excerpt: str = Field(description="The file around the change.")

    def words(self) -> str:
        return self.excerpt


class Entry(BaseModel):
    path: str
    is_folder: bool
    size: int | None = None
    modified: str | None = None


class Listing(Result):
    path: str
    entries: list[Entry]
    truncated: bool = Field(False, description="There are more.")

    def words(self) -> str:
        lines = [entry.path + ("/" if entry.is_folder else f"  {entry.size} bytes") for entry in self.entries]
        return "\n".join(lines + ["[there are more]"] * self.truncated) or "[empty]"


class Match(BaseModel):
    path: str
    line: int = Field(description="From 1.")
    text: str


class Matches(Result):
    matches: list[Match]
    truncated: bool = Field(False, description="There may be more.")

    def words(self) -> str:
        lines = [f"{match.path}:{match.line}: {match.text}" for match in self.matches]
        return "\n".join(lines + ["[there may be more]"] * self.truncated) or "[no match]"


class Found(Result):
    paths: list[str]
    truncated: bool = Field(False, description="There are more.")

    def words(self) -> str:
        return "\n".join(self.paths + ["[there are more]"] * self.truncated) or "[nothing found]"


class FileTools:
    def __init__(self, file: FileService, workspace: str) -> None:
        self._file = file
        self._workspace = workspace

    async def read_file(
        self,
        path: Path,
        first_line: Annotated[int, Field(ge=1, description="From 1.")] = 1,
        line_count: Annotated[int, Field(ge=1, le=100_000)] = EXCERPT_LINES,
    ) -> FileContent:
        """Read a text file, or look at a picture (PNG, JPEG, GIF, WebP)."""
        mime = mimetypes.guess_type(path)[0]
        if mime in PICTURES:
            return await self._picture(path, mime)
        read = await self._file.excerpt(path, first_line=first_line, line_count=line_count)
        return FileContent(**dict(read))

    async def _picture(self, path: str, mime: str) -> FileContent:
        size = (await self._file.stat(path)).size
        if size > LARGEST_PICTURE:
            raise SandboxError("too_large", f"the picture has {size} bytes; {LARGEST_PICTURE} can be shown")
        read = await self._file.read(path, encoding="base64")
        shown = FileContent(path=read.file, size=read.size)
        shown._picture = Picture(base64.b64decode(read.content), mime)
        return shown

    async def write_file(
        self,
        path: Path,
        content: str,
        append: Annotated[bool, Field(description="Add to the end instead of replacing the file.")] = False,
    ) -> Written:
        """Write a text file; missing folders are made, an existing file is replaced."""
        written = await self._file.write(path, content, append=append)
        return Written(path=written.file, size=written.size, created=written.created)

    async def edit_file(
        self,
        path: Path,
        old_text: Annotated[str, Field(min_length=1, description="Exact text, white space included.")],
        new_text: str,
        replace_all: Annotated[bool, Field(description="Every occurrence; else there must be exactly one.")] = False,
    ) -> Edited:
        """Replace text in a file."""
        done = await self._file.edit(
            "str_replace", path, old_str=old_text, new_str=new_text, replace_mode="ALL" if replace_all else None
        )
        return Edited(path=done.path, excerpt=done.output)

    async def list_files(
        self,
        path: Folder = None,
        depth: Annotated[int, Field(ge=1, le=10, description="Levels; 1 is the folder itself.")] = 1,
        hidden: Annotated[bool, Field(description="Also names that begin with a dot.")] = False,
    ) -> Listing:
        """List the files and folders in a folder."""
        listed = await self._file.list(
            path or self._workspace, recursive=depth > 1, max_depth=depth, show_hidden=hidden, max_results=1000
        )
        entries = [
            Entry(path=one.path, is_folder=one.is_directory, size=one.size, modified=one.modified_time)
            for one in listed.files
        ]
        return Listing(path=listed.path, entries=entries, truncated=listed.truncated)

    async def search_files(
        self,
        pattern: Annotated[str, Field(min_length=1, max_length=4000, description="Regular expression.")],
        path: Annotated[Folder, Field(description="Absolute folder or file [the workspace].")] = None,
        include: Annotated[str | None, Field(description="Only files that match this, such as *.py.")] = None,
        ignore_case: bool = False,
        max_results: Annotated[int, Field(ge=1, le=1000)] = 100,
    ) -> Matches:
        """Find lines by a regular expression in the files of a folder."""
        found = await self._file.grep(
            path or self._workspace, pattern, include=[include] if include else [], case_insensitive=ignore_case,
            max_results=max_results,
        )  # fmt: skip
        matches = [Match(path=one.file, line=one.line_number, text=one.line_content) for one in found.matches]
        return Matches(matches=matches, truncated=found.truncated or found.timed_out)

    async def find_files(
        self,
        pattern: Annotated[str, Field(min_length=1, max_length=1000, description="Such as *.py or src/**/test_*.py.")],
        path: Folder = None,
        max_results: Annotated[int, Field(ge=1, le=5000)] = 200,
    ) -> Found:
        """Find files by name under a folder."""
        found = await self._file.find(path or self._workspace, pattern, max_results=max_results)
        return Found(paths=found.files, truncated=found.truncated)
