"""The terminal page and its websocket."""

from __future__ import annotations

import codecs
import json
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.websockets import WebSocketDisconnect

from sandbox_api.errors import SandboxError
from sandbox_api.services import Injected
from sandbox_api.shell.models import SESSION_NAME
from sandbox_api.shell.terminal import Attachment, Terminal
from sandbox_api.unicode import loads

router = APIRouter(tags=["terminal"])

STATIC = Path(__file__).parent / "static"
ASSETS = {
    "xterm.js": "@xterm/xterm/lib/xterm.js",
    "xterm.css": "@xterm/xterm/css/xterm.css",
    "addon-fit.js": "@xterm/addon-fit/lib/addon-fit.js",
}
OWN = {"terminal.js", "terminal.css"}
PING_S = 20.0
TAKEN_OVER, REFUSED = 4001, 4002
"""Codes of closing: another reader has the terminal; no terminal is to be had."""


@router.get("/terminal", include_in_schema=False)
async def page() -> Response:
    return FileResponse(STATIC / "terminal.html", headers={"Cache-Control": "no-cache"})


@router.get("/terminal/", include_in_schema=False)
async def page_with_slash(request: Request) -> Response:
    # The page's addresses are relative to its own, so that a path prefix in front does no harm.
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"../terminal{query}")


@router.get("/terminal/assets/{name}", include_in_schema=False)
async def asset(name: str, services: Injected) -> Response:
    if name in OWN:
        return FileResponse(STATIC / name, headers={"Cache-Control": "no-cache"})
    if name not in ASSETS:
        raise SandboxError("not_found", f"there is no asset {name}")
    folder = services.settings.web_assets
    path = folder / ASSETS[name] if folder else None
    if path is None or not path.is_file():
        raise SandboxError(
            "service_unavailable", "xterm.js is not installed here", hint="Set SANDBOX_WEB_ASSETS to its node_modules."
        )
    return FileResponse(path, headers={"Cache-Control": "max-age=3600"})


@router.websocket("/v1/shell/ws")
@router.websocket("/terminal/ws")
async def connect(websocket: WebSocket, services: Injected) -> None:
    """A terminal. `?session_id=` returns to one, or names a new one; `?takeover=false` leaves it to whoever has it.

    We send {type: session_id|ready|restore_output|output|ping|exit|taken_over|error, data}; the client sends
    {type: input, data}, {type: resize, data: {cols, rows}}, {type: ping|pong}. Other text is typed as it is.
    """
    await websocket.accept()
    shell = services.shell
    name = websocket.query_params.get("session_id") or None
    try:
        if name and not SESSION_NAME.fullmatch(name):
            raise SandboxError("invalid_request", "the session's name has other than letters, digits and _.:@-")
        session = shell.sessions.get(name or "")
        directory = session.directory if session else services.paths.directory(websocket.query_params.get("exec_dir"))
        terminal, resumed = shell.terminals.open(name, directory)
        if terminal.attachment and websocket.query_params.get("takeover", "").lower() in ("0", "false", "no"):
            raise SandboxError("conflict", f"somebody else uses terminal {name}", hint="Connect with takeover=true.")
    except SandboxError as error:
        await websocket.send_json({"type": "error", "data": error.message, "code": error.code, "hint": error.hint})
        await websocket.close(REFUSED, error.code)
        return
    attachment, history = terminal.attach()
    await terminal.serve(
        attachment, _send(websocket, terminal, attachment, history, resumed), _receive(websocket, terminal)
    )


async def _send(
    websocket: WebSocket, terminal: Terminal, attachment: Attachment, history: bytes, resumed: bool
) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def send(kind: str, data: Any = None, **more: Any) -> None:
        await websocket.send_text(json.dumps({"type": kind, "data": data, **more}, ensure_ascii=False))

    try:
        await send("session_id", terminal.id)
        await send("ready", "terminal is ready", session_id=terminal.id, resumed=resumed)
        if resumed:
            await send("restore_output", decoder.decode(history))
        while True:
            if terminal.attachment is not attachment:
                await send("taken_over", "another window uses this terminal")
                await websocket.close(TAKEN_OVER, "taken over")
                return
            if data := terminal.take(attachment):
                if text := decoder.decode(data):
                    await send("output", text)
            elif terminal.ended:
                await send("exit", terminal.exit_code)
                await websocket.close(1000, "the shell has ended")
                return
            elif not await terminal.change(PING_S):
                now = int(time.time() * 1000)
                await send("ping", now, timestamp=now)
    except (WebSocketDisconnect, RuntimeError):
        return  # the reader has gone


async def _receive(websocket: WebSocket, terminal: Terminal) -> None:
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            return
        raw = event.get("text")
        if raw is None:
            await terminal.write(event.get("bytes") or b"")
            continue
        try:
            message = loads(raw)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            await terminal.write(raw.encode(errors="replace"))
            continue
        kind, data = message.get("type"), message.get("data")
        if kind == "input" and isinstance(data, str):
            await terminal.write(data.encode(errors="replace"))
        elif kind == "resize":
            size = data if isinstance(data, dict) else message
            columns, rows = size.get("cols"), size.get("rows")
            if isinstance(columns, int) and isinstance(rows, int) and not terminal.ended:
                terminal.resize(columns, rows)
        elif kind == "ping":
            await websocket.send_json({"type": "pong", "data": data, "timestamp": message.get("timestamp")})
