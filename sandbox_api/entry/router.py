"""Routes. They take every method, HTTP and websocket; what they do is in the services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from sandbox_api import forward, quotas
from sandbox_api.access.service import Caller
from sandbox_api.addresses import public_base, websocket_base
from sandbox_api.entry import cdp, pages, vnc
from sandbox_api.entry.service import EntryService
from sandbox_api.errors import SandboxError
from sandbox_api.forward import Target
from sandbox_api.trace import error_response, trace_id
from sandbox_api.unicode import loads

router = APIRouter()
INDEX = Path(__file__).with_name("index.html")
NO_DESKTOP = "Use the container or the appliance, which have a desktop."
OFF = ("", "0", "no", "false")
Locate = Callable[[EntryService, HTTPConnection, str], Awaitable[tuple[Target, str]]]


def _entry(connection: HTTPConnection) -> EntryService:
    entry: EntryService = connection.app.state.services.entry
    return entry


class Forwarded:
    """Forwards whatever lies under a path.

    Args:
        locate: tells target and raw path at it, for the service, the connection and the raw path at the entry.
    """

    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        try:
            target, path = await self._locate(_entry(connection), connection, forward.raw_path(scope))
            deliver = forward.http if scope["type"] == "http" else forward.websocket
            await deliver(scope, receive, send, target, path)
        except SandboxError as raised:
            error = quotas.translate(raised)
            answer: Response
            if pages.wants_page(connection):
                answer = pages.problem(connection, error, starting=_comes_by_itself(connection, error))
            elif scope["type"] == "http":
                raise
            else:
                answer = error_response(error, trace_id(scope))
            await answer(scope, receive, send)


def _comes_by_itself(connection: HTTPConnection, error: SandboxError) -> bool:
    settings = _entry(connection).settings
    path = connection.scope["path"]
    configured = {
        "/jupyter": settings.jupyter_socket,
        "/code-server": settings.code_server_socket,
        "/vnc": settings.vnc_socket,
    }
    known = [value for prefix, value in configured.items() if path.startswith(prefix)]
    return error.entry.retryable and (all(known) if known else True)


def _after(path: str, segments: int) -> str:
    """A raw path without its first segments."""
    return "/" + (path.split("/", segments + 1)[segments + 1] if path.count("/") > segments else "")


async def _jupyter(entry: EntryService, connection: HTTPConnection, path: str) -> tuple[Target, str]:
    return await entry.jupyter(connection), path


async def _code_server(entry: EntryService, connection: HTTPConnection, path: str) -> tuple[Target, str]:
    return await entry.code_server(connection), _after(path, 1)


async def _port(entry: EntryService, connection: HTTPConnection, path: str) -> tuple[Target, str]:
    return await entry.port(connection, _number(connection), absolute=False), _after(path, 2)


async def _absolute_port(entry: EntryService, connection: HTTPConnection, path: str) -> tuple[Target, str]:
    return await entry.port(connection, _number(connection), absolute=True), path


def _number(connection: HTTPConnection) -> int:
    given = connection.path_params["port"]
    if not (given.isascii() and given.isdigit() and len(given) <= 5):
        raise SandboxError("port_forbidden", f"{given[:20]!r} is not a port")
    return int(given)


async def _devtools(entry: EntryService, connection: HTTPConnection, path: str) -> tuple[Target, str]:
    path = _after(path, 1)
    target = await entry.cdp_target(connection)
    if cdp.BROWSER.fullmatch(path):  # of a browser that ran earlier, perhaps
        path = await entry.browser_path()
    return target, path


async def _json(request: Request) -> Response:
    """DevTools' HTTP answers: which pages are open, and where their websockets are."""
    entry = _entry(request)
    # Some clients end these paths with a slash; Chromium knows them without.
    path = request.url.path.removeprefix(cdp.MOUNT).rstrip("/")
    query = request.scope["query_string"].decode("latin-1")
    status, body = await cdp.ask(await entry.cdp_session(), entry.cdp_base(), request.method, path, query)
    try:
        content: Any = loads(body)
    except ValueError:
        return Response(body, status, media_type="text/plain")
    base = public_base(request, entry.settings), websocket_base(request, entry.settings)
    answer = json.dumps(cdp.rewritten(content, *base), indent=2)
    return Response(answer, status, media_type="application/json", headers={"cache-control": "no-store"})


class Viewer:
    """The desktop's RFB as a websocket.

    A caller whose ticket or cookie says so may only look, whatever the address says; with `?view_only=1` anybody else
    looks only, too.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = _entry(HTTPConnection(scope)).settings.vnc_socket
        if not socket:
            error = SandboxError("display_unavailable", "there is no desktop on this host", hint=NO_DESKTOP)
            await error_response(error, trace_id(scope))(scope, receive, send)
            return
        caller: Caller = scope["state"]["caller"]
        given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("view_only", ["0"])
        view_only = caller.view_only or given[-1].lower() not in OFF
        await vnc.bridge(scope, receive, send, socket, view_only=view_only)


async def _vnc_index(request: Request) -> Response:
    """noVNC, once there is something to see."""
    entry = _entry(request)
    error = None
    if not entry.settings.vnc_socket:
        error = SandboxError("display_unavailable", "there is no desktop on this host", hint=NO_DESKTOP)
    elif not await asyncio.to_thread((entry.settings.novnc / "vnc.html").is_file):
        error = SandboxError(
            "display_unavailable", "noVNC is not installed", hint="Install the package novnc, or set SANDBOX_NOVNC."
        )
    else:
        health = await request.app.state.services.desktop.vnc_health()
        if health.status != "ready":
            error = SandboxError("display_unavailable", health.detail)
    if error is None:
        return FileResponse(INDEX, headers={"cache-control": "no-cache"})
    if pages.wants_page(request):
        return pages.problem(request, error, starting=_comes_by_itself(request, error))
    raise error


async def _vnc_file(request: Request) -> Response:
    root = _entry(request).settings.novnc
    name = request.path_params["path"]

    def find() -> Path | None:
        path = (root / name).resolve()
        return path if path.is_relative_to(root.resolve()) and path.is_file() else None

    path = None if "\0" in name else await asyncio.to_thread(find)
    if path is None:
        raise SandboxError("not_found", f"there is no {request.url.path}")
    # Revalidated by its etag: another version of noVNC must not be mixed with what the browser has.
    return FileResponse(path, headers={"cache-control": "no-cache"})


async def _with_slash(request: Request) -> Response:
    """To the same address with a slash, on which the page's relative addresses rest."""
    last = forward.raw_path(request.scope).rsplit("/", 1)[1] + "/"
    return _redirect(request, last)


async def _to_index(request: Request) -> Response:
    return _redirect(request, "vnc/index.html" if request.url.path == "/vnc" else "index.html")


def _redirect(request: Request, path: str) -> Response:
    # Relative, so that it holds behind any prefix.
    return RedirectResponse(path + (f"?{request.url.query}" if request.url.query else ""), 307)


def _forward(path: str, locate: Locate) -> None:
    endpoint = Forwarded(locate)
    router.add_route(path, endpoint, methods=[], include_in_schema=False)  # type: ignore[arg-type]
    router.add_websocket_route(path, endpoint)  # type: ignore[arg-type]


for name in ("/json", "/json/{path:path}", "/cdp/json", "/cdp/json/{path:path}"):
    router.add_route(name, _json, methods=["GET", "PUT"], include_in_schema=False)
_forward("/cdp/devtools/{path:path}", _devtools)

for name in ("/websockify", "/vnc/websockify"):
    router.add_websocket_route(name, Viewer())  # type: ignore[arg-type]
for name in ("/vnc", "/vnc/"):
    router.add_route(name, _to_index, methods=["GET"], include_in_schema=False)
router.add_route("/vnc/index.html", _vnc_index, methods=["GET"], include_in_schema=False)
router.add_route("/vnc/{path:path}", _vnc_file, methods=["GET"], include_in_schema=False)

_forward("/jupyter", _jupyter)
_forward("/jupyter/{path:path}", _jupyter)
for name in ("/code-server", "/proxy/{port}"):
    router.add_route(name, _with_slash, methods=["GET"], include_in_schema=False)
_forward("/code-server/{path:path}", _code_server)
_forward("/proxy/{port}/{path:path}", _port)
_forward("/absproxy/{port}", _absolute_port)
_forward("/absproxy/{port}/{path:path}", _absolute_port)
