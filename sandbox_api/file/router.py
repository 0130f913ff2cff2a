"""Routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.responses import Response

from sandbox_api.envelope import Envelope, ok
from sandbox_api.errors import SandboxError
from sandbox_api.file import models
from sandbox_api.file.conditions import Precondition, names, seconds
from sandbox_api.file.failures import translate_os_errors
from sandbox_api.protocol import PROTOCOL
from sandbox_api.services import Injected

router = APIRouter(prefix="/v1/file", tags=["file"])
watching = APIRouter(prefix="/watch", tags=["file-watch"])

UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "path": {"type": "string", "description": "Absolute path of the file, or of a folder for it."},
                    },
                }
            }
        },
    }
}
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
INLINE = ("text/plain", "image/*", "audio/*", "video/*")
"""What a browser may show, if it is asked for inline."""
BINARY: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            form: {"schema": {"type": "string", "format": "binary"}} for form in ("application/octet-stream", *INLINE)
        }
    },
    206: {"description": "The part that Range asked for"},
    304: {"description": "Not changed"},
    409: {"description": "Changed while it was opened, with change_policy=abort"},
    416: {"description": "The file is shorter than the range"},
}


class Conditions:
    """Preconditions in headers."""

    def __init__(
        self,
        if_match: Annotated[str | None, Header(description="Only if the file has one of these etags.")] = None,
        if_unmodified_since: Annotated[str | None, Header(description="Fail if modified after this time.")] = None,
        if_none_match: Annotated[str | None, Header(description="* refuses a file that exists.")] = None,
    ) -> None:
        self.etags = names(if_match)
        self.since = seconds(if_unmodified_since)
        self.absent = (if_none_match or "").strip() == "*"

    def with_body(self, body: models.Guarded, *, overwrite: bool = True) -> Precondition:
        absent = self.absent or not overwrite
        etags = self.etags | names(body.if_etag)
        if body.if_mtime is not None:
            return Precondition(etags, body.if_mtime, absent=absent)
        return Precondition(etags, self.since, 1.0, absent)


Conditional = Annotated[Conditions, Depends()]


def _options(body: BaseModel, *left_out: str) -> dict[str, Any]:
    """The fields of a request that go to the service as they are."""
    return body.model_dump(exclude={"sudo", "if_etag", "if_mtime", *left_out})


def _refuse_sudo(operation: str, body: models.SudoRequest, path: str) -> None:
    if body.sudo:
        with translate_os_errors(operation, path):
            raise SandboxError(
                "not_implemented",
                "sudo is not offered: the sandbox's user has no further rights",
                hint="Repeat without sudo.",
            )


@router.post("/read")
async def read_file(body: models.ReadRequest, services: Injected) -> Envelope[models.ReadResult]:
    """Read text, a range of its lines or bytes, or anything as base64."""
    _refuse_sudo("read", body, body.file)
    return ok(await services.file.read(body.file, **_options(body, "file")))


@router.post("/write")
async def write_file(
    body: models.WriteRequest, services: Injected, conditions: Conditional
) -> Envelope[models.WriteResult]:
    """Write text or base64. A file is replaced as a whole: nobody sees half of it."""
    _refuse_sudo("write", body, body.file)
    condition = conditions.with_body(body, overwrite=body.overwrite)
    return ok(
        await services.file.write(body.file, body.content, condition=condition, **_options(body, "file", "content"))
    )


@router.post("/replace")
async def replace_in_file(
    body: models.ReplaceRequest, services: Injected, conditions: Conditional
) -> Envelope[models.ReplaceResult]:
    """Replace every occurrence of a text."""
    _refuse_sudo("replace", body, body.file)
    result, hint = await services.file.replace(
        body.file, body.old_str, body.new_str, condition=conditions.with_body(body)
    )
    return ok(result, hint=hint)


@router.post("/search")
async def search_in_file(body: models.SearchRequest, services: Injected) -> Envelope[models.SearchResult]:
    """Lines of one file that match a regular expression."""
    _refuse_sudo("search", body, body.file)
    return ok(await services.file.search(body.file, **_options(body, "file")))


@router.post("/find")
async def find_files(body: models.FindRequest, services: Injected) -> Envelope[models.FindResult]:
    """Files and folders by the pattern of their name, at any depth."""
    return ok(await services.file.find(**_options(body)))


@router.post("/grep")
async def grep_files(body: models.GrepRequest, services: Injected) -> Envelope[models.GrepResult]:
    """Lines of many files that match a regular expression or a plain text."""
    return ok(await services.file.grep(**_options(body)))


@router.post("/glob")
async def glob_files(body: models.GlobRequest, services: Injected) -> Envelope[models.GlobResult]:
    """Files by the pattern of their path."""
    return ok(await services.file.glob(**_options(body)))


@router.post("/list")
async def list_path(body: models.ListRequest, services: Injected) -> Envelope[models.ListResult]:
    """What is in a folder."""
    return ok(await services.file.list(**_options(body)))


@router.post("/str_replace_editor")
async def str_replace_editor(body: models.EditorRequest, services: Injected) -> Envelope[models.EditorResult]:
    """View, create and edit text files; the last edits can be undone."""
    return ok(await services.file.edit(**_options(body)))


@router.post("/upload", openapi_extra=UPLOAD_FORM)
async def upload_file(request: Request, services: Injected, conditions: Conditional) -> Envelope[models.UploadResult]:
    """Upload a file as a form."""
    kind = request.headers.get("content-type", "")
    condition = conditions.with_body(models.Guarded())
    return ok(await services.file.uploads.form(kind, request.stream(), _length(request), condition))


@router.put("/content", openapi_extra=UPLOAD_BODY)
async def put_content(
    request: Request,
    services: Injected,
    conditions: Conditional,
    path: Annotated[str, Query(description="Absolute path.")],
) -> Envelope[models.UploadResult]:
    """Upload a file as the plain body: the fastest way."""
    condition = conditions.with_body(models.Guarded())
    protocol = request.scope.get(PROTOCOL)
    size = _length(request)
    return ok(await services.file.upload(path, request.stream(), size=size, condition=condition, protocol=protocol))


def _length(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None


@router.get("/download", response_class=Response, responses=BINARY)
async def download_file(
    request: Request,
    services: Injected,
    path: Annotated[str, Query(description="Absolute path.")],
    change_policy: Annotated[
        Literal["ignore", "abort"], Query(description="abort breaks off when the file changes meanwhile.")
    ] = "ignore",
    inline: Annotated[
        bool, Query(description="For showing it: pictures, sound, film and text keep their type.")
    ] = False,
) -> Response:
    """Download a file, or the part that Range names."""
    return await services.file.download(path, request.headers, change_policy, inline=inline)


@router.post("/stat")
async def stat_path(body: models.StatRequest, services: Injected) -> Envelope[models.StatResult]:
    """Metadata of a file, folder or link."""
    return ok(await services.file.stat(**_options(body)))


@router.post("/mkdir")
async def make_folder(body: models.MkdirRequest, services: Injected) -> Envelope[models.PathResult]:
    """Make a folder."""
    return ok(await services.file.mkdir(**_options(body)))


@router.post("/move")
async def move_path(body: models.MoveRequest, services: Injected) -> Envelope[models.MoveResult]:
    """Move or rename a file or folder."""
    return ok(await services.file.move(**_options(body)))


@router.post("/copy")
async def copy_path(body: models.MoveRequest, services: Injected) -> Envelope[models.MoveResult]:
    """Copy a file, or a folder with all that is in it."""
    return ok(await services.file.copy(**_options(body)))


@router.post("/delete")
async def delete_path(
    body: models.DeleteRequest, services: Injected, conditions: Conditional
) -> Envelope[models.DeleteResult]:
    """Delete a file, a link or a folder."""
    condition = conditions.with_body(body)
    return ok(await services.file.delete(body.path, recursive=body.recursive, condition=condition))


WatcherId = Annotated[str, Path(max_length=80)]


@watching.get("")
async def list_watches(services: Injected) -> Envelope[models.WatchList]:
    """Watchers that exist."""
    return ok(models.WatchList(watchers=services.file.watchers.all()))


@watching.post("")
async def create_watch(body: models.WatchRequest, services: Injected) -> Envelope[models.WatchInfo]:
    """Watch a file or folder. Poll, or read the stream of events."""
    return ok(await services.file.watch(**_options(body)))


@watching.post("/wait")
async def wait_for_file(body: models.WaitRequest, services: Injected) -> Envelope[models.WaitResult]:
    """Wait until something happens to one path, which need not exist."""
    return ok(await services.file.wait(**_options(body)))


@watching.post("/{watcher_id}/poll")
async def poll_events(
    watcher_id: WatcherId, body: models.PollRequest, services: Injected
) -> Envelope[models.PollResult]:
    """Events after a cursor."""
    return ok(await services.file.watchers.poll(watcher_id, body))


@watching.get(
    "/{watcher_id}/events", response_model=None, responses={200: {"content": {"text/event-stream": {"schema": {}}}}}
)
async def watch_events(
    watcher_id: WatcherId,
    request: Request,
    services: Injected,
    cursor: Annotated[int, Query(ge=0, description="Begin after this event.")] = 0,
) -> StreamingResponse:
    """Events as they happen, as server-sent events; Last-Event-ID resumes after a break."""
    watcher = services.file.watchers.get(watcher_id)
    last = request.headers.get("last-event-id", "")
    cursor = int(last) if last.isascii() and last.isdigit() and len(last) < 20 else cursor
    stream: AsyncIterator[str] = services.file.watchers.stream(watcher, cursor)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


@watching.delete("/{watcher_id}")
async def stop_watch(watcher_id: WatcherId, services: Injected) -> Envelope[models.StopResult]:
    """Stop watching."""
    services.file.watchers.drop(watcher_id)
    return ok(models.StopResult(watcher_id=watcher_id))


router.include_router(watching)
