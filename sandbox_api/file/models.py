"""Requests and results of the file routes. Times are ISO 8601 in UTC, or Unix time where a field says seconds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

Name = Field(description="Absolute path.", max_length=4096, examples=["/workspace/notes.txt"])
EventType = Literal["create", "write", "remove", "rename", "chmod"]


class Request(BaseModel):
    """A field that is null counts as left out."""

    @model_validator(mode="before")
    @classmethod
    def _leave_nulls_out(cls, values: Any) -> Any:
        return (
            {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values
        )


class SudoRequest(Request):
    sudo: bool = Field(False, description="Not offered: the sandbox's user has no further rights.")


class Guarded(Request):
    if_etag: str | None = Field(None, description="Only if the file's etag is this one; also as the If-Match header.")
    if_mtime: float | None = Field(
        None, description="Fail if modified after this time, in seconds; also as the If-Unmodified-Since header."
    )


class ReadRequest(SudoRequest):
    file: str = Name
    start_line: int | None = Field(None, ge=0, description="First line, from 0.")
    end_line: int | None = Field(None, ge=0, description="Line before which to end, from 0.")
    start_byte: int | None = Field(None, ge=0, description="First byte, from 0.")
    end_byte: int | None = Field(None, ge=0, description="Byte before which to end, from 0.")
    encoding: Literal["utf-8", "base64"] = Field("utf-8", description="base64 for anything that is not text.")


class ReadResult(BaseModel):
    content: str
    file: str
    encoding: str = "utf-8"
    size: int = Field(0, description="Bytes of the whole file.")
    etag: str = ""
    mtime: float = Field(0, description="Last change in seconds.")
    start_byte: int | None = Field(None, description="Where a byte range began; cut characters are left out.")
    end_byte: int | None = Field(None, description="Where it ended: the start of the next.")
    total_lines: int | None = Field(None, description="Lines of the file, when its end was read.")


class Excerpt(BaseModel):
    """As many lines of a text file as a model can take at once."""

    path: str
    content: str = Field(description="Lines; the last one without its line end.")
    size: int = Field(description="Bytes of the whole file.")
    first_line: int
    last_line: int
    total_lines: int | None = Field(description="Lines of the file, when its end was read.")
    more: bool = Field(description="Whether the file goes on after last_line.")
    omitted_chars: int = Field(description="Characters of last_line that were cut off.")


class WriteRequest(SudoRequest, Guarded):
    file: str = Name
    content: str = Field(description="Text, or base64.")
    encoding: Literal["utf-8", "base64", "raw"] = Field(
        "utf-8", description="What content is; raw is text that no newline is added to."
    )
    append: bool = Field(False, description="Add to the end instead of replacing the file.")
    leading_newline: bool = Field(False, description="Begin with a newline; text only.")
    trailing_newline: bool = Field(False, description="End with a newline; text only.")
    create_parents: bool = Field(True, description="Make missing folders.")
    overwrite: bool = Field(True, description="False refuses a file that exists; also as If-None-Match: *.")


class WriteResult(BaseModel):
    file: str
    bytes_written: int | None = None
    created: bool = False
    size: int = 0
    etag: str = ""
    mtime: float = 0


class ReplaceRequest(SudoRequest, Guarded):
    file: str = Name
    old_str: str = Field(min_length=1)
    new_str: str


class ReplaceResult(BaseModel):
    file: str
    replaced_count: int = 0
    etag: str = ""


class SearchRequest(SudoRequest):
    file: str = Name
    regex: str = Field(description="Regular expression of Python.", max_length=4000)
    max_results: int = Field(1000, ge=1, le=10_000)


class SearchResult(BaseModel):
    file: str
    matches: list[str] = Field([], description="Lines with a match; very long ones are cut.")
    line_numbers: list[int] = Field([], description="Their numbers from 0, as read takes them.")
    truncated: bool = Field(False, description="There may be more.")
    timed_out: bool = Field(False, description="The search was ended by its time limit.")


class FindRequest(Request):
    path: str = Name
    glob: str = Field(
        description="Pattern of names, or of paths below the folder when it has a slash.", max_length=1000
    )
    max_results: int = Field(5000, ge=1, le=50_000)


class FindResult(BaseModel):
    path: str
    files: list[str] = []
    truncated: bool = False


class GrepRequest(Request):
    path: str = Name
    pattern: str = Field(max_length=4000)
    include: list[str] = Field([], max_length=100, description="Only files whose name or path matches one of these.")
    exclude: list[str] = Field([], max_length=100, description="No files or folders that match one of these.")
    case_insensitive: bool = False
    fixed_strings: bool = Field(False, description="The pattern is plain text.")
    context_before: int = Field(0, ge=0, le=20)
    context_after: int = Field(0, ge=0, le=20)
    max_results: int = Field(500, ge=1, le=10_000)
    max_file_size: str = Field("1M", pattern=r"^\d{1,12}[KMGkmg]?$", description="Larger files are left out.")
    multiline: bool = Field(False, description="Patterns may span lines; the dot matches newlines.")
    offset: int = Field(0, ge=0, le=1_000_000, description="Matches to leave out at the beginning.")
    type: str | None = Field(None, pattern=r"^[A-Za-z0-9_+-]{1,40}$", description="File type, such as py, js, rust.")
    recursive: bool = True
    include_hidden: bool = Field(False, description="Also names that begin with a dot.")


class GrepMatch(BaseModel):
    file: str
    line_number: int = Field(description="From 1.")
    line_content: str
    context_before: list[str] | None = None
    context_after: list[str] | None = None


class GrepResult(BaseModel):
    path: str
    pattern: str
    matches: list[GrepMatch] = []
    match_count: int = Field(0, description="Matches found; all there are, unless truncated.")
    files_searched: int | None = None
    files_matched: int | None = None
    truncated: bool = False
    timed_out: bool = False


class GlobRequest(Request):
    path: str = Name
    pattern: str = Field(max_length=1000, description="Such as **/*.py or {a,b}/*.txt.")
    exclude: list[str] = Field([], max_length=100)
    include_hidden: bool = False
    files_only: bool = True
    include_metadata: bool = True
    max_results: int = Field(5000, ge=1, le=50_000)
    sort_by: Literal["path", "name", "size", "modified"] = "path"
    sort_desc: bool = False


class GlobFile(BaseModel):
    path: str
    name: str
    is_directory: bool = False
    size: int | None = None
    modified_time: str | None = None


class GlobResult(BaseModel):
    path: str
    pattern: str
    files: list[GlobFile] = []
    total_count: int = 0
    truncated: bool = False


class ListRequest(Request):
    path: str = Name
    recursive: bool = False
    show_hidden: bool = True
    file_types: list[str] = Field([], max_length=100, description="Only files with these endings, such as .py.")
    max_depth: int | None = Field(None, ge=1, description="Levels of a recursive listing; 1 is the folder itself.")
    include_size: bool = True
    include_permissions: bool = False
    sort_by: Literal["name", "size", "modified", "type"] = "name"
    sort_desc: bool = False
    max_results: int = Field(10_000, ge=1, le=50_000)


class FileInfo(BaseModel):
    name: str
    path: str
    is_directory: bool
    size: int | None = None
    modified_time: str | None = None
    permissions: str | None = Field(None, description="Such as rw-r--r--.")
    extension: str | None = None
    is_symlink: bool = False


class ListResult(BaseModel):
    path: str
    files: list[FileInfo] = []
    total_count: int = 0
    directory_count: int = 0
    file_count: int = 0
    truncated: bool = False


class EditorRequest(Request):
    command: Literal["view", "create", "str_replace", "insert", "undo_edit"]
    path: str = Name
    file_text: str | None = Field(None, description="Content of a file to create.")
    old_str: str | None = Field(None, description="Text to replace.")
    new_str: str | None = Field(None, description="Text to put in; nothing if left out of str_replace.")
    insert_line: int | None = Field(None, ge=0, description="Line after which to insert; 0 is the beginning.")
    view_range: list[int] = Field([], max_length=2, description="First and last line from 1; -1 is the last one.")
    replace_mode: Literal["ALL", "FIRST", "LAST"] | None = Field(
        None, description="Which occurrences; if left out, there must be exactly one."
    )
    page_range: list[int] = Field([], description="Accepted; documents are read by /v1/util/convert_to_markdown.")
    sheet_name: str | None = Field(None, description="Accepted, as page_range.")
    row_range: list[int] = Field([], description="Accepted, as page_range.")
    slide_range: list[int] = Field([], description="Accepted, as page_range.")
    enable_metadata: bool = Field(False, description="Put size, times and type in metadata.")


class EditorResult(BaseModel):
    output: str
    error: str | None = None
    path: str
    prev_exist: bool
    old_content: str | None = None
    new_content: str | None = None
    metadata: dict[str, Any] | None = None


class UploadResult(BaseModel):
    file_path: str
    file_size: int
    success: bool = True
    etag: str = ""
    created: bool = False


class StatRequest(Request):
    path: str = Name
    follow: bool = Field(True, description="False tells of a link itself.")


class StatResult(BaseModel):
    path: str
    name: str
    type: Literal["file", "directory", "link", "other"]
    size: int = Field(description="Bytes.")
    mtime: float = Field(description="Last change of the content, in seconds.")
    modified_time: str
    changed_time: str = Field(description="Last change of content or metadata.")
    mode: str = Field(description="Octal, such as 0644.")
    permissions: str = Field(description="Such as rw-r--r--.")
    uid: int
    gid: int
    owner: str | None = None
    group: str | None = None
    etag: str
    mime: str | None = Field(None, description="Guessed from the name.")
    target: str | None = Field(None, description="Where a link points.")
    real_path: str = Field(description="With all links followed.")
    width: int | None = Field(None, description="Pixels of a PNG, GIF or JPEG picture.")
    height: int | None = None


class MkdirRequest(Request):
    path: str = Name
    parents: bool = Field(True, description="Make missing folders above it.")
    exist_ok: bool = Field(True, description="False refuses a folder that exists.")


class PathResult(BaseModel):
    path: str
    created: bool = False


class MoveRequest(Request):
    source: str = Name
    destination: str = Field(description="New absolute path, name included.", max_length=4096)
    overwrite: bool = Field(False, description="Replace a file that is there.")


class MoveResult(BaseModel):
    source: str
    destination: str


class DeleteRequest(Guarded):
    path: str = Name
    recursive: bool = Field(False, description="Also folders that are not empty.")


class DeleteResult(BaseModel):
    path: str
    deleted: bool = True


class WatchRequest(Request):
    path: str = Name
    recursive: bool = True
    exclude: list[str] = Field(
        [".git", "node_modules", "__pycache__", ".venv", "*.pyc", "*.pyo", ".DS_Store", "*.swp", "*.swo"],
        max_length=100,
        description="Names or patterns that are not reported.",
    )
    debounce: int = Field(300, ge=50, le=5000, description="Milliseconds that changes are gathered.")
    include_patterns: list[str] = Field([], max_length=100, description="Only what matches; everything if empty.")


class WatchInfo(BaseModel):
    watcher_id: str
    path: str
    recursive: bool
    created_time: str
    cursor: int = Field(0, description="Number of the latest event.")


class WatchList(BaseModel):
    watchers: list[WatchInfo] = []


class FileEvent(BaseModel):
    seq: int
    type: EventType
    path: str
    is_directory: bool
    timestamp: float = Field(description="In seconds.")
    new_path: str | None = Field(
        None, description="New path after a rename within the watched folder; a `create` event for it follows."
    )


class PollRequest(Request):
    cursor: int = Field(0, ge=0, description="Only events after this one; the cursor of the answer before.")
    limit: int = Field(100, ge=1, le=1000)
    timeout: int = Field(0, ge=0, le=60, description="Seconds to wait for an event.")


class PollResult(BaseModel):
    watcher_id: str
    events: list[FileEvent] = []
    cursor: int = 0
    has_more: bool = False
    lost: int = Field(0, description="Events after the cursor that are no longer kept.")


class WaitRequest(Request):
    path: str = Name
    timeout: int = Field(30, ge=1, le=300, description="Seconds.")
    event_types: list[EventType] = Field(["create", "write", "remove", "rename", "chmod"], min_length=1)
    accept_existing: bool = Field(False, description="Answer at once if the file is there already.")


class WaitResult(BaseModel):
    path: str
    triggered: bool
    event: FileEvent | None = None
    timed_out: bool = False


class StopResult(BaseModel):
    watcher_id: str
    stopped: bool = True
