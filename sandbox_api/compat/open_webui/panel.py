"""The file browser and the terminal that the chat page shows to people."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, WebSocket
from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from sandbox_api.compat.open_webui.conversation import InConversation
from sandbox_api.errors import SandboxError
from sandbox_api.services import Injected
from sandbox_api.shell.terminal import Attachment, Terminal
from sandbox_api.unicode import loads

router = APIRouter()

SYSTEM_PROMPT = (
    "You have a sandbox: a Linux machine of your own with a shell, files, Python, Node.js and a web browser, used by "
    "the tools that you are given. The user sees its files and can use the same terminal. Its files are in {workspace}."
)
PREFIX = "panel-"
"""Of the names of the panel's terminals."""
AUTH_S = 10.0
UNAUTHORIZED = 4001
NOT_FOUND = 4004


class PathRequest(BaseModel):
    path: str


class MoveRequest(BaseModel):
    source: str
    destination: str


class ArchiveRequest(BaseModel):
    paths: list[str] = Field(min_length=1, max_length=1000)


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/api/config")
async def config() -> dict[str, Any]:
    return {"features": {"terminal": True, "notebooks": False, "system": True}}


@router.get("/system")
async def system(services: Injected) -> dict[str, str]:
    return {"prompt": SYSTEM_PROMPT.format(workspace=services.paths.workspace)}


@router.get("/skills")
async def skills() -> list[Any]:
    return []


@router.get("/ports")
async def ports() -> dict[str, list[Any]]:
    """None: through the chat page, what programs serve would act with the chat page's own origin."""
    return {"ports": []}


# Files


@router.get("/files/cwd")
async def folder(chat: InConversation) -> dict[str, str]:
    return {"cwd": str(chat.directory), "home": str(chat.services.paths.workspace)}


@router.post("/files/cwd")
async def change_folder(body: PathRequest, chat: InConversation) -> dict[str, str]:
    directory = chat.path(body.path)
    await chat.move_to(directory)
    return {"cwd": directory}


@router.get("/files/view")
async def view(path: str, request: Request, chat: InConversation) -> Response:
    return await chat.services.file.download(chat.path(path), request.headers, inline=True)


@router.get("/files/serve/{path:path}")
async def serve(path: str, request: Request, chat: InConversation) -> Response:
    """By path, so that the relative links of a page work."""
    return await chat.services.file.download(f"/{path}", request.headers, inline=True)


@router.post("/files/mkdir")
async def mkdir(body: PathRequest, chat: InConversation) -> dict[str, str]:
    return {"path": (await chat.services.file.mkdir(chat.path(body.path))).path}


@router.delete("/files/delete")
async def delete(path: str, chat: InConversation) -> dict[str, str]:
    return {"path": (await chat.services.file.delete(chat.path(path), recursive=True)).path}


@router.post("/files/move")
async def move(body: MoveRequest, chat: InConversation) -> dict[str, str]:
    moved = await chat.services.file.move(chat.path(body.source), chat.path(body.destination))
    return {"source": moved.source, "destination": moved.destination}


@router.post("/files/upload")
async def upload(request: Request, chat: InConversation, directory: Annotated[str, Query()] = ".") -> dict[str, Any]:
    kind, length = request.headers.get("content-type", ""), request.headers.get("content-length", "")
    announced = int(length) if length.isdigit() else None
    stored = await chat.services.file.uploads.form(kind, request.stream(), announced, folder=chat.path(directory))
    return {"path": stored.file_path, "size": stored.file_size}


@router.post("/files/archive")
async def archive(body: ArchiveRequest, chat: InConversation) -> Response:
    """Files and folders as one ZIP."""
    return await chat.services.file.archive([chat.path(path) for path in body.paths])


# Terminal


@router.get("/execute")
async def commands(chat: InConversation) -> list[dict[str, Any]]:
    """The chat's commands: the panel shows those that run."""
    session = chat.services.shell.sessions.get(chat.session_id or "")
    return [
        {"id": command.id, "command": command.text, "status": command.status, "exit_code": command.exit_code}
        for command in (session.commands if session else [])
    ]


@router.get("/api/terminals")
async def terminals(services: Injected) -> list[dict[str, Any]]:
    mine = (terminal for name, terminal in services.shell.terminals.all.items() if name.startswith(PREFIX))
    return [{"id": terminal.id, "created_at": terminal.created} for terminal in mine]


@router.post("/api/terminals")
async def create_terminal(chat: InConversation) -> dict[str, str]:
    terminal, _ = chat.services.shell.terminals.open(f"{PREFIX}{secrets.token_hex(8)}", chat.directory)
    return {"id": terminal.id}


@router.delete("/api/terminals/{terminal_id}")
async def delete_terminal(terminal_id: str, services: Injected) -> dict[str, str]:
    if not services.shell.terminals.close(terminal_id):
        raise SandboxError("session_not_found", f"there is no terminal {terminal_id}")
    return {"status": "deleted"}


@router.websocket("/api/terminals/{terminal_id}")
async def connect(websocket: WebSocket, terminal_id: str, services: Injected) -> None:
    """Bytes are typed and shown as they are; text messages are {type: resize, cols, rows}.

    The first message is {type: auth, token}: Open WebUI has no other place for its key here.
    """
    await websocket.accept()
    terminal = services.shell.terminals.all.get(terminal_id)
    if terminal is None:
        await websocket.close(NOT_FOUND, "there is no such terminal")
        return
    try:
        await services.access.vouch(websocket, _token(await asyncio.wait_for(websocket.receive_text(), AUTH_S)))
    except (TimeoutError, KeyError, WebSocketDisconnect):
        return
    except SandboxError as error:
        await websocket.close(UNAUTHORIZED, error.message)
        return
    attachment, history = terminal.attach()
    try:
        await terminal.serve(attachment, _send(websocket, terminal, attachment, history), _receive(websocket, terminal))
    finally:
        # The panel never comes back to a terminal that it has left.
        services.shell.terminals.close(terminal_id)


def _token(message: str) -> str:
    try:
        parsed = loads(message)
    except ValueError:
        return ""
    token = parsed.get("token") if isinstance(parsed, dict) else None
    return token if isinstance(token, str) else ""


async def _send(websocket: WebSocket, terminal: Terminal, attachment: Attachment, history: bytes) -> None:
    if history:
        await websocket.send_bytes(history)
    while True:
        if data := terminal.take(attachment):
            await websocket.send_bytes(data)
        elif terminal.ended:
            break
        else:
            await terminal.change(60)
    await websocket.close(1000, "the shell has ended")


async def _receive(websocket: WebSocket, terminal: Terminal) -> None:
    while (event := await websocket.receive())["type"] != "websocket.disconnect":
        if data := event.get("bytes"):
            await terminal.write(data)
        elif text := event.get("text"):
            try:
                message = loads(text)
            except ValueError:
                continue
            columns, rows = (message.get(name) if isinstance(message, dict) else None for name in ("cols", "rows"))
            if isinstance(columns, int) and isinstance(rows, int) and not terminal.ended:
                terminal.resize(columns, rows)
