"""The desktop by VNC: the protocol over our websocket, and noVNC in a person's browser."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sandbox_api.desktop import rfb
from tests.support.chromium import PROGRAM, QUIET
from tests.support.sandbox import Sandbox, program, running

WIDTH, HEIGHT = 1280, 800


class Viewer:
    """Enough of a VNC client: the greeting, and messages by hand."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._buffer = b""

    async def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            message = await asyncio.wait_for(self.connection.recv(), 10)
            assert isinstance(message, bytes)
            self._buffer += message
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def greet(self) -> tuple[int, int]:
        assert await self.read(12) == b"RFB 003.008\n"
        await self.connection.send(b"RFB 003.008\n")
        (count,) = await self.read(1)
        assert 1 in await self.read(count)
        await self.connection.send(b"\1")
        assert await self.read(4) == b"\0\0\0\0"
        await self.connection.send(b"\1")
        width, height, _, length = struct.unpack(">HH16sI", await self.read(24))
        assert await self.read(length) == b"AI Sandbox"
        return width, height

    async def picture(self, width: int, height: int) -> bytes:
        """The whole screen, raw."""
        await self.connection.send(struct.pack(">BxHi", 2, 1, 0))
        await self.connection.send(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        kind, rectangles = struct.unpack(">BxH", await self.read(4))
        assert kind == 0
        screen = bytearray(width * height * 4)
        for _ in range(rectangles):
            x, y, w, h, encoding = struct.unpack(">HHHHi", await self.read(12))
            assert encoding == 0
            pixels = await self.read(w * h * 4)
            for row in range(h):
                at = ((y + row) * width + x) * 4
                screen[at : at + w * 4] = pixels[row * w * 4 : (row + 1) * w * 4]
        return bytes(screen)

    async def point(self, x: int, y: int, buttons: int = 0) -> None:
        await self.connection.send(struct.pack(">BBHH", 5, buttons, x, y))


@asynccontextmanager
async def viewer(desktop: Sandbox, path: str = "/websockify", **headers: str) -> AsyncIterator[Viewer]:
    address = f"ws://127.0.0.1:{desktop.port}{path}"
    async with connect(
        address,
        subprotocols=["binary"],  # type: ignore[list-item]
        compression=None,
        additional_headers=headers,
    ) as connection:
        assert connection.subprotocol == "binary"
        yield Viewer(connection)


def pointer(desktop: Sandbox) -> tuple[int, int]:
    info = desktop.client.get("/v1/desktop/info").json()["data"]
    return info["pointer_x"], info["pointer_y"]


def eventually(check: Callable[[], Any], patience: float = 10) -> Any:
    deadline = time.monotonic() + patience
    while not (value := check()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


@pytest.mark.parametrize("path", ["/websockify", "/vnc/websockify"])
async def test_speaks_rfb(desktop: Sandbox, path: str) -> None:
    async with viewer(desktop, path) as seen:
        width, height = await seen.greet()
        picture = await seen.picture(width, height)
        assert len(set(picture[::4])) > 1
        await seen.point(321, 234)
        assert await asyncio.to_thread(eventually, lambda: pointer(desktop) == (321, 234))


async def test_many_viewers(desktop: Sandbox) -> None:
    async def one() -> bytes:
        async with viewer(desktop) as seen:
            return await seen.picture(*await seen.greet())

    pictures = await asyncio.gather(*(one() for _ in range(6)))
    assert len({len(picture) for picture in pictures}) == 1


async def test_a_viewer_that_does_not_read_holds_up_nobody(desktop: Sandbox) -> None:
    async with viewer(desktop) as slow, viewer(desktop) as quick:
        width, height = await slow.greet()
        await slow.connection.send(struct.pack(">BxHi", 2, 1, 0))
        for _ in range(30):  # 120 MB, which nobody takes
            await slow.connection.send(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        memory = Path(f"/proc/{desktop.process.pid}/statm")
        await quick.picture(*await quick.greet())
        assert int(memory.read_text().split()[1]) * 4096 < 400 * 2**20
        slow.connection.transport.abort()


async def test_view_only_is_enforced(desktop: Sandbox) -> None:
    desktop.client.put("/v1/desktop/clipboard", json={"text": "mine"})
    async with viewer(desktop) as seen:
        await seen.greet()
        await seen.point(100, 100)
        assert await asyncio.to_thread(eventually, lambda: pointer(desktop) == (100, 100))
    async with viewer(desktop, "/websockify?view_only=1") as seen:
        width, height = await seen.greet()
        await seen.point(500, 500)
        await seen.connection.send(struct.pack(">BxxxI", 6, 4) + b"gone")
        await seen.connection.send(struct.pack(">BBxxI", 4, 1, ord("x")))
        # In pieces, and joined with what may pass.
        message = struct.pack(">BBHH", 5, 1, 600, 600) * 3
        for byte in message:
            await seen.connection.send(bytes([byte]))
        picture = await seen.picture(width, height)
        assert len(picture) == width * height * 4
        await asyncio.sleep(0.2)
        assert pointer(desktop) == (100, 100)
        assert desktop.client.get("/v1/desktop/clipboard").json()["data"]["text"] == "mine"
        await seen.connection.send(b"\x77nonsense")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(seen.connection.recv(), 10)
        assert closed.value.rcvd
        assert "view only" in closed.value.rcvd.reason


def test_view_only_filter() -> None:
    key, point = struct.pack(">BBxxI", 4, 1, 65), struct.pack(">BBHH", 5, 1, 2, 3)
    cut = struct.pack(">BxxxI", 6, 5) + b"hello"
    extended = struct.pack(">Bxxxi", 6, -8) + b"\0" * 8
    size = struct.pack(">BxHHBxIHHHHI", 251, 10, 10, 1, 0, 0, 0, 10, 10, 0)
    qemu = struct.pack(">BBHII", 255, 0, 1, 65, 30)
    ask, encodings = struct.pack(">BBHHHH", 3, 0, 0, 0, 9, 9), struct.pack(">BxHii", 2, 2, 0, -308)
    fence, updates = struct.pack(">BxxxIB3s", 248, 1, 3, b"abc"), struct.pack(">BBHHHH", 150, 1, 0, 0, 9, 9)
    form = b"\0" * 20
    greeting = b"RFB 003.008\n" + b"\1" + b"\1"
    everything = greeting + b"".join([key, ask, point, cut, encodings, extended, size, fence, qemu, updates, form, key])
    wanted = greeting + ask + encodings + fence + updates + form
    for step in (1, 3, 7, len(everything)):
        one = rfb.ViewOnly()
        passed = b"".join(one(everything[at : at + step]) for at in range(0, len(everything), step))
        assert passed == wanted, step
    with pytest.raises(rfb.ProtocolError):
        rfb.ViewOnly()(greeting + b"\x63")
    with pytest.raises(rfb.ProtocolError):
        rfb.ViewOnly()(greeting + struct.pack(">BxxxI", 6, 2**30))


@pytest.mark.parametrize(
    "greeting",
    [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.889\n", b"RFB 003.008\r", b"RFB 003.008\n\x02",
     b"RFB 003.008\n\x13"],
)  # fmt: skip
def test_view_only_follows_one_greeting(greeting: bytes) -> None:
    """After another one the server would read a key where the filter sees a request for a picture."""
    for step in (1, len(greeting)):
        one = rfb.ViewOnly()
        with pytest.raises(rfb.ProtocolError):
            for at in range(0, len(greeting), step):
                one(greeting[at : at + step])


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">BxxxI", 3, 2**31 - 1),
        struct.pack(">BxHHHHHi", 0, 1, 0, 0, 65535, 65535, 0),
        struct.pack(">BxxxI", 3, 3) + b"abc" + struct.pack(">BxHHHHHi", 0, 1, 0, 0, 2, 2, 0) + bytes(16),
    ],
)
async def test_what_a_server_announces_is_not_held(sent: bytes) -> None:
    """A program of the sandbox can be in its place."""

    class Reader(asyncio.StreamReader):
        async def readexactly(self, n: int) -> bytes:
            assert n <= rfb.BLOCK
            return await super().readexactly(n)

    reader = Reader()
    reader.feed_data(sent + b"\x63")
    reader.feed_eof()
    with pytest.raises(EOFError if len(sent) < 20 else rfb.ProtocolError):
        await rfb._screens(reader, mine=False)


@asynccontextmanager
async def recording_server(path: Path) -> AsyncIterator[bytearray]:
    """A VNC server that shows nothing; what viewers sent it after the greeting."""
    sent = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for words, answer in ((rfb.VERSION, 12), (b"\1\1", 1), (bytes(4), 1)):
            writer.write(words)
            await reader.readexactly(answer)
        writer.write(struct.pack(">HH16sI", 8, 8, bytes(16), 10) + b"AI Sandbox")
        while data := await reader.read(1000):
            sent.extend(data)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield sent


async def test_a_view_only_ticket_lets_nobody_touch(tmp_path: Path) -> None:
    """Whatever the address says: the ticket's claim goes over to the cookies of the page."""
    key = {"X-API-Key": "a-key-of-the-vnc-tests"}
    typed, ask = struct.pack(">BBxxI", 4, 1, ord("x")), struct.pack(">BBHHHH", 3, 0, 0, 0, 8, 8)
    settings = {"auth": "1", "api_keys": key["X-API-Key"], "vnc_socket": str(tmp_path / "vnc")}
    async with recording_server(tmp_path / "vnc") as sent:
        with running(tmp_path / "root", **settings) as sandbox:

            def issued(path: str, **more: bool) -> dict[str, Any]:
                answer = sandbox.client.post("/tickets", json={"path": path, **more}, headers=key)
                data: dict[str, Any] = answer.json()["data"]
                return data

            def cookie(ticket: dict[str, Any]) -> dict[str, str]:
                """Of the page's websocket, as its browser sends it."""
                with httpx.Client() as browser:
                    opened = browser.get(ticket["url"])
                    assert opened.status_code == 303
                    made = next(made for made in browser.cookies.jar if made.path == "/websockify")
                return {"Cookie": f"{made.name}={made.value}"}

            async def passes(path: str = "/websockify", **headers: str) -> bool:
                """Whether a key that is pressed arrives; the question behind it always does."""
                sent.clear()
                async with viewer(sandbox, path, **headers) as one:
                    await one.greet()
                    await one.connection.send(typed + ask)
                    await asyncio.to_thread(eventually, lambda: sent.endswith(ask))
                return typed in sent

            looking = issued("/vnc/", view_only=True)
            assert "?view_only=1&ticket=" in looking["url"], "the page knows, too"
            tied = cookie(looking)
            assert not await passes(**tied)
            assert not await passes("/websockify?view_only=0", **tied)
            assert not await passes(f"/vnc/websockify?ticket={issued('/vnc/websockify', view_only=True)['ticket']}")
            assert not await passes("/websockify?view_only=1", **key)
            assert await passes(**cookie(issued("/vnc/")))
            assert await passes(**key)
            for path in ("/", "/v1", "/terminal", "/vncx"):
                refused = sandbox.client.post("/tickets", json={"path": path, "view_only": True}, headers=key)
                assert refused.status_code == 422 and "view_only" in refused.text


async def test_text_is_refused(desktop: Sandbox) -> None:
    async with viewer(desktop) as seen:
        await seen.read(12)
        await seen.connection.send("hello")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(seen.connection.recv(), 10)
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1008


def test_static_files(desktop: Sandbox) -> None:
    assert desktop.client.get("/vnc", follow_redirects=False).headers["location"] == "vnc/index.html"
    assert desktop.client.get("/vnc/?view_only=1").headers["location"] == "index.html?view_only=1"
    assert desktop.client.get("/vnc/index.html").headers["content-type"].startswith("text/html")
    assert "javascript" in desktop.client.get("/vnc/app/ui.js").headers["content-type"]
    for path in (
        "/vnc/none.js",
        "/vnc/%2e%2e/%2e%2e/etc/passwd",
        "/vnc/..%2f..%2f..%2fetc%2fpasswd",
        "/vnc/app",
        "/vnc/a%00b",
    ):
        answer = desktop.client.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "not_found"


async def test_without_a_desktop(sandbox: Sandbox) -> None:
    answer = sandbox.client.get("/vnc/index.html")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "display_unavailable"
    page = sandbox.client.get("/vnc/index.html", headers={"accept": "text/html,*/*"})
    assert page.status_code == 503
    assert "<h1>Not available</h1>" in page.text
    assert "refresh" not in page.text
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{sandbox.port}/websockify")
    assert json.loads(refused.value.response.body or b"")["error"]["code"] == "display_unavailable"


async def test_resize_by_service(desktop: Sandbox) -> None:
    path = Path(desktop.variables["SANDBOX_VNC_SOCKET"])
    await rfb.resize(path, 1024, 768)
    info = desktop.client.get("/v1/desktop/info").json()["data"]
    assert (info["width"], info["height"]) == (1024, 768)
    assert desktop.client.get("/v1/browser/screenshot").headers["x-image-width"] == "1024"
    await rfb.resize(path, WIDTH, HEIGHT)
    with pytest.raises((rfb.ProtocolError, EOFError)):
        await rfb.resize(path, 60000, 60000)


# noVNC


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=PROGRAM, args=QUIET)


def opened(chromium: Browser, desktop: Sandbox, query: str = "", width: int = WIDTH, height: int = HEIGHT) -> Page:
    page = chromium.new_context(viewport={"width": width, "height": height}).new_page()
    page.goto(f"{desktop.url}/vnc/index.html{query}")
    page.wait_for_selector("html.noVNC_connected")
    return page


DESKTOP_PAGE = (
    "data:text/html,<title>in the desktop</title><body style='background:rgb(20,120,220)'>"
    "<input id=t autofocus style='position:fixed;left:100px;top:100px;width:600px;height:80px;font-size:40px'>"
)


@pytest.fixture(scope="module")
def window(desktop: Sandbox) -> Callable[[str], Any]:
    """Evaluates in the desktop's browser, from another process: the tests' own Playwright drives the viewer."""
    script = (
        "import sys; from playwright.sync_api import sync_playwright\n"
        "with sync_playwright() as p:\n"
        "    page = p.chromium.connect_over_cdp(sys.argv[1]).contexts[0].pages[0]\n"
        "    if sys.argv[2].startswith('data:'): page.goto(sys.argv[2]); page.bring_to_front(); print('null')\n"
        "    else: import json; print(json.dumps(page.evaluate(sys.argv[2])))\n"
    )

    def evaluate(expression: str) -> Any:
        words = [sys.executable, "-c", script, desktop.variables["SANDBOX_CDP_URL"], expression]
        return json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)

    return evaluate


def test_a_person_types_through_novnc(desktop: Sandbox, chromium: Browser, window: Callable[[str], Any]) -> None:
    window(DESKTOP_PAGE)
    page = opened(chromium, desktop)
    page.wait_for_timeout(1000)
    page.mouse.click(300, 230)
    page.keyboard.type("Hello VNC", delay=20)
    assert eventually(lambda: window("t.value") == "Hello VNC")
    page.wait_for_timeout(300)
    page.screenshot(path=desktop.root / "novnc.png")
    # Clipboard, both ways.
    page.evaluate("document.querySelector('#noVNC_clipboard_text').value = 'from the viewer'")
    page.dispatch_event("#noVNC_clipboard_text", "change")
    assert eventually(lambda: desktop.client.get("/v1/desktop/clipboard").json()["data"]["text"] == "from the viewer")
    desktop.client.put("/v1/desktop/clipboard", json={"text": "from the desktop"})
    page.wait_for_function("document.querySelector('#noVNC_clipboard_text').value == 'from the desktop'")
    page.context.close()


def test_view_only_page_lets_nothing_through(desktop: Sandbox, chromium: Browser, window: Callable[[str], Any]) -> None:
    window(DESKTOP_PAGE)
    before = pointer(desktop)
    page = opened(chromium, desktop, "?view_only=1", 900, 900)
    page.wait_for_timeout(700)
    page.mouse.click(300, 300)
    page.keyboard.type("nothing")
    # Even when the viewer unties its own hands.
    page.evaluate("import('/vnc/app/ui.js').then(m => { m.default.rfb.viewOnly = false; m.default.rfb.sendKey(120); })")
    page.mouse.click(320, 300)
    page.wait_for_timeout(500)
    assert window("t.value") == ""
    assert pointer(desktop) == before
    assert desktop.client.get("/v1/desktop/info").json()["data"]["width"] == WIDTH
    page.context.close()


def test_desktop_takes_the_viewers_size(desktop: Sandbox, chromium: Browser) -> None:
    page = opened(chromium, desktop, "", 1000, 700)

    def size() -> tuple[int, int]:
        info = desktop.client.get("/v1/desktop/info").json()["data"]
        return info["width"], info["height"]

    assert eventually(lambda: size() == (1000, 700))
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    assert eventually(lambda: size() == (WIDTH, HEIGHT))
    shot = desktop.client.get("/v1/browser/screenshot")
    assert (shot.headers["x-screen-width"], shot.headers["x-screen-height"]) == (str(WIDTH), str(HEIGHT))
    page.context.close()


def test_behind_a_prefix(desktop: Sandbox, chromium: Browser, tmp_path: Path) -> None:
    """A proxy in front that strips a prefix: the page finds its websocket all the same."""
    front = tmp_path / "front.py"
    front.write_text(FRONT)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with program([sys.executable, str(front), str(port), str(desktop.port)], dict(desktop.variables), tmp_path / "log"):
        eventually(lambda: _listens(port))
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{port}/some/where/vnc/index.html?view_only=1")
        page.wait_for_selector("html.noVNC_connected")
        page.close()


FRONT = """
import asyncio, sys

async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    there, back = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    line, rest = head.split(b"\\r\\n", 1)
    assert b" /some/where/" in line, line
    if b"pgrade: websocket" not in rest:
        rest = b"Connection: close\\r\\n" + rest.replace(b"Connection: keep-alive\\r\\n", b"")
    back.write(line.replace(b" /some/where/", b" /", 1) + b"\\r\\n" + rest)

    async def pump(source, target):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        target.close()

    await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

async def main():
    await (await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))).serve_forever()

asyncio.run(main())
"""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_viewers_come_back_after_the_display_restarts(tmp_path: Path, chromium: Browser) -> None:
    with running(tmp_path, "display") as started:
        display = started.programs["display"]
        eventually(lambda: started.client.get("/vnc/index.html").status_code == 200, 30)
        page = opened(chromium, started, "?view_only=1")
        display.send_signal(signal.SIGTERM)
        display.wait(10)
        page.wait_for_selector("html:not(.noVNC_connected)")
        waiting = started.client.get("/vnc/index.html", headers={"accept": "text/html"})
        assert waiting.status_code == 503
        assert "<h1>Starting" in waiting.text
        assert 'http-equiv="refresh"' in waiting.text
        time.sleep(2)
        with program([*map(str, display.args)], started.variables, tmp_path / "again.log"):  # type: ignore[arg-type]
            page.wait_for_selector("html.noVNC_connected")
        page.context.close()
