"""Forwards requests and websockets to programs behind the entry, without changing what they say.

Bodies stream both ways; what the caller sends for us alone, and what concerns one connection only, stays here. Our
credentials are gone already: the guard takes them out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.types import Message, Receive, Scope, Send

from sandbox_api.errors import SandboxError

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientWebSocketResponse
    from multidict import CIMultiDict

Headers = list[tuple[bytes, bytes]]

LARGEST_MESSAGE = 256 * 2**20
"""Bytes of one websocket message."""
CLOSE_S = 2.0
CONNECTION_HEADERS = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
REPLACED_HEADERS = {"host", "origin", "referer", "forwarded", "expect", "x-real-ip"}
# Browsers send the cookies of all ports of a host, those of other sandboxes too.
OUR_COOKIE = re.compile(r"sandbox-\d+")


@dataclass(frozen=True)
class Target:
    """A program behind the entry.

    Args:
        name: for messages.
        session: knows how to reach it.
        base: scheme and host of its address, such as `http://localhost:3000`; with a unix socket only for form.
        host, origin: what it is told as `Host`, and as `Origin` in place of the entry's own; None tells it no origin.
        public: scheme, host and prefix under which callers reach the entry.
        mount: path under which callers reach the program.
        keeps_mount: whether the program knows of that path, and has it in its own addresses.
        refused: code of the error when it does not answer.
    """

    name: str
    session: ClientSession
    base: str
    host: str
    origin: str | None
    public: str
    mount: str
    keeps_mount: bool
    refused: str = "service_unavailable"

    @property
    def prefix(self) -> str:
        """What its own paths must be given to be reached by callers."""
        return urlsplit(self.public).path + ("" if self.keeps_mount else self.mount)


def raw_path(scope: Scope) -> str:
    """The path as it came, percent signs and all."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("ascii", "replace")


def _names_in_connection(headers: Headers) -> set[str]:
    listed = b",".join(value for name, value in headers if name == b"connection")
    return {word.strip() for word in listed.decode("latin-1").lower().split(",")}


def _request_headers(scope: Scope, target: Target) -> CIMultiDict[str]:
    from multidict import CIMultiDict

    headers: CIMultiDict[str] = CIMultiDict()
    dropped = CONNECTION_HEADERS | REPLACED_HEADERS | _names_in_connection(scope["headers"])
    public = urlsplit(target.public)
    own_origin = f"{public.scheme}://{public.netloc}"
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("utf-8", "replace")
        if name in ("origin", "referer"):
            if target.origin:
                own = value.lower().startswith(own_origin.lower())
                headers[name] = target.origin + value[len(own_origin) :] if own else value
        elif name == "cookie":
            kept = [part for part in value.split(";") if not OUR_COOKIE.fullmatch(part.partition("=")[0].strip())]
            if kept:
                headers.add("Cookie", ";".join(kept).strip())
        elif name not in dropped and not name.startswith(("x-forwarded-", "sec-websocket-")):
            headers.add(name, value)
    headers["Host"] = target.host
    if scope.get("client"):
        headers["X-Forwarded-For"] = scope["client"][0]
    headers["X-Forwarded-Proto"] = public.scheme
    headers["X-Forwarded-Host"] = public.netloc
    if target.prefix:
        headers["X-Forwarded-Prefix"] = target.prefix
    return headers


def _location(value: str, target: Target) -> str:
    """A redirect's address as the caller must have it."""
    parts = urlsplit(value)
    if parts.netloc:
        own = {target.host, urlsplit(target.base).netloc, urlsplit(target.public).netloc}
        if parts.netloc not in own or parts.scheme not in ("", "http", "https", "ws", "wss"):
            return value
        value = parts._replace(scheme="", netloc="").geturl() or "/"
    if not value.startswith("/") or value.startswith("//"):
        return value
    # Some programs make their redirects from X-Forwarded-Prefix already.
    return value if target.prefix and value.startswith(target.prefix + "/") else target.prefix + value


def _cookie(value: str, target: Target) -> str | None:
    """A `Set-Cookie` that stays with its program: not sent to others behind the entry, and never one of ours."""
    first, *rest = value.split(";")
    if OUR_COOKIE.fullmatch(first.partition("=")[0].strip()):
        return None
    path = "/"
    kept = [first]
    for part in rest:
        name, _, content = part.strip().partition("=")
        if name.lower() == "path":
            path = content.strip() or "/"
        elif name.lower() != "domain":
            kept.append(part)
    return ";".join([*kept, f" Path={target.prefix + path if path.startswith('/') else target.prefix + '/'}"])


def _answer_headers(raw: tuple[tuple[bytes, bytes], ...], target: Target) -> Headers:
    headers = [(name.lower(), value) for name, value in raw]
    dropped = CONNECTION_HEADERS | _names_in_connection(headers) | {"date"}  # ours is set by the server
    answer = []
    for name, value in headers:
        text = name.decode("latin-1")
        if text in dropped:
            continue
        if text in ("location", "content-location"):
            value = _location(value.decode("latin-1"), target).encode("latin-1", "replace")
        elif text == "set-cookie":
            cookie = _cookie(value.decode("latin-1"), target)
            if cookie is None:
                continue
            value = cookie.encode("latin-1")
        answer.append((name, value))
    return answer


class _Body:
    """The request's body as it arrives; afterwards it notices when the caller leaves."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = asyncio.Event()

    async def stream(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the caller has left")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                self._read.set()
                return

    def nothing(self) -> None:
        self._read.set()

    async def left(self) -> None:
        """Returns when the caller has gone."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def http(scope: Scope, receive: Receive, send: Send, target: Target, path: str) -> None:
    """Forward a request, and its answer as it comes.

    Args:
        path: raw path at the program, with a leading slash.

    Raises:
        SandboxError: the target's `refused`, or `proxy_failed`; only before an answer has begun.
    """
    body = _Body(receive)
    work = asyncio.create_task(_exchange(scope, send, target, path, body))
    left = asyncio.create_task(body.left())
    try:
        await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
        if not work.done():
            work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def _exchange(scope: Scope, send: Send, target: Target, path: str, body: _Body) -> None:
    import aiohttp
    from yarl import URL

    query = scope["query_string"].decode("latin-1")
    url = URL(target.base + path + (f"?{query}" if query else ""), encoded=True)
    headers = _request_headers(scope, target)
    has_body = "content-length" in headers or any(name == b"transfer-encoding" for name, _ in scope["headers"])
    if not has_body:
        body.nothing()
    begun = False
    try:
        async with target.session.request(
            scope["method"],
            url,
            headers=headers,
            data=body.stream() if has_body else None,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as response:
            begun = True
            answer = _answer_headers(response.raw_headers, target)
            await send({"type": "http.response.start", "status": response.status, "headers": answer})
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        if not begun:
            raise _failure(error, target) from error
        # Without an end: the server breaks the connection off, as the program did, so that the caller notices.


def _failure(error: Exception, target: Target) -> SandboxError:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError | FileNotFoundError):
        return SandboxError(target.refused, f"{target.name} does not answer")
    return SandboxError("proxy_failed", f"{target.name} broke off: {type(error).__name__}: {error}"[:300])


async def websocket(scope: Scope, receive: Receive, send: Send, target: Target, path: str) -> None:
    """Forward a websocket until either side closes it; the other then gets the same code and reason.

    Raises:
        SandboxError: the target's `refused`, or `proxy_failed`; only before it is accepted.
    """
    import aiohttp
    from yarl import URL

    await receive()
    query = scope["query_string"].decode("latin-1")
    url = URL(target.base + path + (f"?{query}" if query else ""), encoded=True)
    try:
        upstream = await target.session.ws_connect(
            url,
            headers=_request_headers(scope, target),
            protocols=scope.get("subprotocols", ()),
            max_msg_size=LARGEST_MESSAGE,
            compress=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
        )
    except aiohttp.WSServerHandshakeError as error:
        raise SandboxError(
            "proxy_failed", f"{target.name} refuses the websocket with status {error.status}", data=error.status
        ) from error
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise _failure(error, target) from error
    try:
        await send({"type": "websocket.accept", "subprotocol": upstream.protocol, "headers": []})
        await both(_to_upstream(receive, upstream), _to_caller(send, upstream))
    finally:
        await upstream.close()


async def both(*ways: object) -> None:
    """Run until the first ends; end the others."""
    tasks = [asyncio.ensure_future(way) for way in ways]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, OSError):
            raise result


async def _to_upstream(receive: Receive, upstream: ClientWebSocketResponse) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or 1000
            # 1005 and 1006 say that no code came; they cannot be sent.
            await upstream.close(
                code=1000 if code in (1005, 1006) else code, message=(message.get("reason") or "").encode()
            )
            return
        text = message.get("text")
        if text is not None:
            await upstream.send_str(text)
        else:
            await upstream.send_bytes(message["bytes"])


async def _to_caller(send: Send, upstream: ClientWebSocketResponse) -> None:
    from aiohttp import WSMsgType

    while True:
        message = await upstream.receive()
        if message.type is WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        elif message.type is WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        else:
            code = upstream.close_code or 1011
            # 1006: it has gone without a word.
            code = 1011 if code == 1006 else 1000 if code == 1005 else code
            reason = message.extra if message.type is WSMsgType.CLOSE else "the program behind it has gone"
            await send({"type": "websocket.close", "code": code, "reason": reason or ""})
            return
