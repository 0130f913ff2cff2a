"""Tools for the model of the chat page. Summaries and descriptions are what the model reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from sandbox_api.browser.models import ScreenshotRequest
from sandbox_api.compat.open_webui.conversation import InConversation
from sandbox_api.errors import SandboxError
from sandbox_api.file.models import FileInfo, GlobFile
from sandbox_api.file.service import EXCERPT_LINES
from sandbox_api.shell.command import Command
from sandbox_api.shell.models import LONGEST_COMMAND

router = APIRouter()

WAIT_S = 60.0
ANSWER_CHARS = 20_000
"""Of each stream in an answer: a model's context is dear."""
SHOWN_FILES = 500
SHOWN_MATCHES = 100

Path = Annotated[str, Query(description="Absolute, or relative to the current folder.")]


class CommandRequest(BaseModel):
    command: str = Field(max_length=LONGEST_COMMAND, description="What the shell runs, such as: ls -la | head")
    timeout: float = Field(WAIT_S, gt=0, le=280, description="Seconds to wait for its end. It goes on after that.")


class CodeRequest(BaseModel):
    code: str = Field(max_length=LONGEST_COMMAND, description="The value of the last expression is returned, too.")
    language: Literal["python", "javascript"] = "python"
    timeout: float = Field(WAIT_S, gt=0, le=280, description="Seconds.")


class WriteRequest(BaseModel):
    path: str = Field(description="Absolute, or relative to the current folder.")
    content: str = Field(description="The whole new content.")


class ReplaceRequest(BaseModel):
    path: str = Field(description="Absolute, or relative to the current folder.")
    target: str = Field(min_length=1, description="The exact text to replace; every occurrence is.")
    replacement: str


class PageRequest(BaseModel):
    url: str = Field(max_length=8192, description="Such as https://example.com.")


def _summary(command: Command) -> dict[str, Any]:
    final = not command.running
    stdout, stderr = (spool.excerpt(ANSWER_CHARS, final).text for spool in (command.stdout, command.stderr))
    answer = {"status": command.status, "exit_code": command.exit_code, "stdout": stdout, "stderr": stderr}
    return answer if final else {**answer, "id": command.id}


@router.post("/execute", operation_id="run_command", summary="Run a command in the sandbox's shell")
async def run_command(body: CommandRequest, chat: InConversation) -> dict[str, Any]:
    """Folder and variables are kept from one command to the next. A command that takes longer than `timeout` goes on
    and has an `id` in the answer."""
    command = await chat.services.shell.run(body.command, session_id=chat.session_id, timeout=body.timeout)
    return _summary(command)


@router.get("/execute/{id}", operation_id="command_output", summary="Output and state of a command that goes on")
async def command_output(
    id: str, chat: InConversation, wait: Annotated[float, Query(ge=0, le=280, description="Seconds.")] = 0
) -> dict[str, Any]:
    command = chat.services.shell.find(chat.session_id or "", id)
    await command.wait(wait)
    return _summary(command)


@router.delete("/execute/{id}", operation_id="stop_command", summary="Stop a command that goes on")
async def stop_command(id: str, chat: InConversation) -> dict[str, Any]:
    command = chat.services.shell.find(chat.session_id or "", id)
    await chat.services.shell.kill(command, "SIGTERM")
    return _summary(command)


@router.post("/code", operation_id="run_code", summary="Run Python or JavaScript in the sandbox")
async def run_code(body: CodeRequest, chat: InConversation) -> dict[str, Any]:
    """Variables are not kept. Python has numpy, pandas and matplotlib."""
    done = await chat.services.code.execute(body.language, body.code, cwd=str(chat.directory), timeout=body.timeout)
    values = [
        text for output in done.outputs
        if output.output_type == "execute_result" and (text := (output.data or {}).get("text/plain"))
    ]  # fmt: skip
    answer = {"status": done.status, "stdout": done.stdout, "stderr": done.stderr, "values": values}
    return {**answer, "traceback": done.traceback} if done.traceback else answer


def _described(file: FileInfo | GlobFile) -> dict[str, Any]:
    kind = "directory" if file.is_directory else "file"
    return {"type": kind, "size": file.size, "modified": file.modified_time}


@router.get("/files/list", operation_id="list_files", summary="List a folder")
async def list_files(chat: InConversation, directory: Path = ".") -> dict[str, Any]:
    folder = chat.path(directory)
    listed = await chat.services.file.list(folder, sort_by="type")
    entries = [{"name": entry.name, **_described(entry)} for entry in listed.files]
    return {"dir": listed.path, "writable": True, "entries": entries, "truncated": listed.truncated}


@router.get("/files/read", operation_id="read_file", summary="Read a text file, or some of its lines")
async def read_file(
    path: Path,
    chat: InConversation,
    start_line: Annotated[int | None, Query(ge=1, description="First line, from 1.")] = None,
    end_line: Annotated[int | None, Query(ge=1, description="Last line.")] = None,
) -> dict[str, Any]:
    """Returns at most 2000 lines; if there are more, `next_line` is where to continue. `omitted_chars` is what was cut
    off a very long line."""
    first = start_line or 1
    count = EXCERPT_LINES if end_line is None else min(end_line - first + 1, EXCERPT_LINES)
    if count < 1:
        raise SandboxError("invalid_request", f"end_line {end_line} is before start_line {first}")
    read = await chat.services.file.excerpt(chat.path(path), first_line=first, line_count=count)
    answer: dict[str, Any] = {"path": read.path, "total_lines": read.total_lines, "content": read.content}
    if read.more:
        answer["next_line"] = read.last_line + 1
    if read.omitted_chars:
        answer["omitted_chars"] = read.omitted_chars
    return answer


@router.get("/files/display", operation_id="display_file", summary="Show a file to the user in the file viewer")
async def display_file(path: Path, chat: InConversation) -> dict[str, Any]:
    """Returns no content: use read_file to read it yourself."""
    found = await chat.services.file.stat(chat.path(path))
    return {"path": found.path, "exists": found.type == "file"}


@router.post("/files/write", operation_id="write_file", summary="Write a text file as a whole")
async def write_file(body: WriteRequest, chat: InConversation) -> dict[str, Any]:
    """Missing folders are made; a file that is there is replaced."""
    written = await chat.services.file.write(chat.path(body.path), body.content)
    return {"path": written.file, "size": written.size}


@router.post("/files/replace", operation_id="replace_file_content", summary="Replace text in a file")
async def replace_file_content(body: ReplaceRequest, chat: InConversation) -> dict[str, Any]:
    replaced, hint = await chat.services.file.replace(chat.path(body.path), body.target, body.replacement)
    answer = {"path": replaced.file, "replaced": replaced.replaced_count}
    return {**answer, "hint": hint} if hint else answer


@router.get("/files/grep", operation_id="grep_search", summary="Search files for a text or regular expression")
async def grep_search(
    query: Annotated[str, Query(max_length=4000)],
    chat: InConversation,
    path: Path = ".",
    regex: bool = False,
    include: Annotated[str | None, Query(max_length=200, description="Only such files: *.py")] = None,
) -> dict[str, Any]:
    found = await chat.services.file.grep(
        chat.path(path), query, fixed_strings=not regex, include=[include] if include else [], max_results=SHOWN_MATCHES
    )
    matches = [{"file": match.file, "line": match.line_number, "text": match.line_content} for match in found.matches]
    return {"matches": matches, "truncated": found.truncated}


@router.get("/files/glob", operation_id="glob_search", summary="Find files by their name")
async def glob_search(
    pattern: Annotated[str, Query(max_length=1000, description="Such as **/*.py")],
    chat: InConversation,
    path: Path = ".",
    max_results: Annotated[int, Query(ge=1, le=SHOWN_FILES)] = SHOWN_FILES,
) -> dict[str, Any]:
    below = pattern if "/" in pattern else f"**/{pattern}"
    found = await chat.services.file.glob(chat.path(path), below, files_only=False, max_results=max_results)
    matches = [{"path": file.path, **_described(file)} for file in found.files]
    return {"path": found.path, "matches": matches, "truncated": found.truncated}


@router.post("/browser/open", operation_id="open_page", summary="Open a web page in the sandbox's browser and read it")
async def open_page(body: PageRequest, chat: InConversation) -> dict[str, Any]:
    """Returns the page's content as Markdown. The user can watch the browser."""
    browser = chat.services.browser
    opened = await browser.navigate(body.url)
    page = (await browser.markdown()).data
    return {"url": opened.data.url, "title": opened.data.title, "content": page.markdown[:ANSWER_CHARS]}


@router.post("/browser/screenshot", operation_id="screenshot_page", summary="Save a picture of the browser's page")
async def screenshot_page(chat: InConversation) -> dict[str, Any]:
    """Returns the picture's path: display_file shows it to the user."""
    path = str(chat.services.paths.workspace / "screenshots" / "page.png")
    saved = (await chat.services.browser.screenshot(ScreenshotRequest(path=path))).data
    return {"path": saved.path, "width": saved.width, "height": saved.height}
