"""The desktop as programs use it: each action has its effect in a page of the browser that is open there."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from agent_sandbox import Sandbox as PeerClient
from agent_sandbox.browser import (
    Action_Click,
    Action_DoubleClick,
    Action_DragTo,
    Action_Hotkey,
    Action_MoveTo,
    Action_Press,
    Action_Scroll,
    Action_Typing,
)
from playwright.sync_api import Page, sync_playwright

from tests.support.sandbox import Sandbox

PAGE = """<!doctype html><title>probe</title><body style="margin:0;height:5000px;width:5000px">
<textarea id=t style="position:fixed;left:100px;top:100px;width:400px;height:200px"></textarea>
<script>window.seen=[];
for (const kind of ['mousedown','mouseup','mousemove','dblclick','contextmenu','keydown','keyup','click'])
  addEventListener(kind, e => seen.push({kind, x: e.screenX, y: e.screenY, button: e.button, key: e.key,
    detail: e.detail, buttons: e.buttons}), true);
</script>"""


@pytest.fixture(scope="module")
def window(desktop: Sandbox) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(desktop.variables["SANDBOX_CDP_URL"])
        context = browser.contexts[0]
        yield context.pages[0] if context.pages else context.new_page()


@pytest.fixture
def page(window: Page, desktop: Sandbox) -> Page:
    """A fresh page in the desktop's browser, the pointer in its empty part."""
    window.set_content(PAGE)
    window.evaluate("seen.length = 0")
    act(desktop, "MOVE_TO", x=900, y=600)
    window.wait_for_function("seen.length > 0")
    window.evaluate("seen.length = 0")
    return window


def act(desktop: Sandbox, kind: str, **fields: Any) -> dict[str, Any]:
    answer = desktop.client.post("/v1/browser/actions", json={"action_type": kind, **fields})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refused(desktop: Sandbox, kind: str, **fields: Any) -> dict[str, Any]:
    answer = desktop.client.post("/v1/browser/actions", json={"action_type": kind, **fields})
    error: dict[str, Any] = answer.json()["error"]
    assert answer.status_code >= 400
    return error


def events(page: Page, *kinds: str) -> list[dict[str, Any]]:
    page.wait_for_function("kinds => seen.some(e => kinds.includes(e.kind))", arg=list(kinds))
    page.wait_for_timeout(100)
    found: list[dict[str, Any]] = page.evaluate("kinds => seen.filter(e => kinds.includes(e.kind))", list(kinds))
    return found


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG, whose data is whole."""
    width, height = struct.unpack_from(">II", png, 16)
    at, data = 8, b""
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += length + 12
    assert len(zlib.decompress(data)) == height * (1 + 3 * width)
    return width, height


def test_screenshot_is_the_whole_desktop_and_quick(desktop: Sandbox, page: Page) -> None:
    page.evaluate("document.body.style.background = 'rgb(250, 10, 130)'")
    page.wait_for_timeout(300)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        answer = desktop.client.get("/v1/browser/screenshot")
        times.append(time.perf_counter() - start)
    assert answer.headers["content-type"] == "image/png"
    sizes = [answer.headers[f"x-{what}-{side}"] for what in ("screen", "image") for side in ("width", "height")]
    assert sizes == ["1280", "800", "1280", "800"]
    assert size(answer.content) == (1280, 800)
    one = ["-vf", "crop=1:1:900:600", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decode = ["ffmpeg", "-loglevel", "error", "-i", "-", *one]
    colour = subprocess.run(decode, input=answer.content, capture_output=True, check=True).stdout
    assert colour == bytes((250, 10, 130))
    assert sorted(times)[2] < 0.15, times


def test_screenshot_as_jpeg(desktop: Sandbox) -> None:
    answer = desktop.client.get("/v1/browser/screenshot", params={"format": "jpg", "quality": 10})
    better = desktop.client.get("/v1/browser/screenshot", params={"format": "jpeg", "quality": 95})
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content[:3] == b"\xff\xd8\xff"
    assert len(answer.content) < len(better.content)
    assert desktop.client.get("/v1/browser/screenshot", params={"quality": 101}).status_code == 422


def test_click_lands_where_the_screenshot_says(desktop: Sandbox, page: Page) -> None:
    body = act(desktop, "CLICK", x=700, y=500)
    assert body["status"] == "success"
    assert body["action_performed"] == body["data"]["action_performed"] == "CLICK"
    (down,) = events(page, "mousedown")
    assert (down["x"], down["y"], down["button"]) == (700, 500, 0)


def test_buttons_and_counts(desktop: Sandbox, page: Page) -> None:
    act(desktop, "CLICK", x=500, y=640, num_clicks=3)
    assert [e["detail"] for e in events(page, "click")] == [1, 2, 3]
    page.evaluate("seen.length = 0")
    act(desktop, "DOUBLE_CLICK", x=600, y=500)
    assert len(events(page, "dblclick")) == 1
    page.evaluate("seen.length = 0")
    act(desktop, "CLICK", button="middle")
    assert [e["button"] for e in events(page, "mousedown")] == [1]
    page.evaluate("seen.length = 0")
    act(desktop, "RIGHT_CLICK", x=650, y=550)
    assert len(events(page, "contextmenu")) == 1
    act(desktop, "PRESS", key="esc")


def test_relative_moves_and_drags(desktop: Sandbox, page: Page) -> None:
    act(desktop, "MOVE_REL", x_offset=-100, y_offset=-50)
    assert [(e["x"], e["y"]) for e in events(page, "mousemove")][-1] == (800, 550)
    page.evaluate("seen.length = 0")
    act(desktop, "DRAG_TO", x=700, y=600)
    assert [(e["x"], e["y"]) for e in events(page, "mousedown", "mouseup")] == [(800, 550), (700, 600)]
    assert any(e["buttons"] == 1 for e in events(page, "mousemove"))
    page.evaluate("seen.length = 0")
    act(desktop, "DRAG_REL", x_offset=40, y_offset=-20)
    assert [(e["x"], e["y"]) for e in events(page, "mousedown", "mouseup")] == [(700, 600), (740, 580)]
    page.evaluate("seen.length = 0")
    act(desktop, "MOUSE_DOWN", button="left")
    act(desktop, "MOVE_TO", x=760, y=590)
    act(desktop, "MOUSE_UP", button="left")
    assert [e["kind"] for e in events(page, "mousedown", "mouseup")] == ["mousedown", "mouseup"]
    info = desktop.client.get("/v1/desktop/info").json()["data"]
    assert (info["pointer_x"], info["pointer_y"], info["width"], info["height"]) == (760, 590, 1280, 800)


def test_scroll(desktop: Sandbox, page: Page) -> None:
    act(desktop, "SCROLL", dy=300)
    page.wait_for_function("scrollY > 100 && scrollX == 0")
    act(desktop, "SCROLL", dx=300)
    page.wait_for_function("scrollX > 100")
    act(desktop, "SCROLL", dx=-2000, dy=-2000)
    page.wait_for_function("scrollY == 0 && scrollX == 0")


TEXT = "Grüße, 你好, שלום, 🙂\nline 2\t'\"$(touch x)`;\\"


@pytest.mark.parametrize(
    ("text", "clipboard"), [(TEXT, True), ("A quick test: {[]} ~ 42!\nTwo", False), ("äé€你", False)]
)
def test_typing(desktop: Sandbox, page: Page, text: str, clipboard: bool) -> None:
    page.focus("#t")
    act(desktop, "CLICK", x=300, y=300)
    page.focus("#t")
    act(desktop, "TYPING", text=text, use_clipboard=clipboard)
    page.wait_for_function("t.value.length >= 4")
    page.wait_for_timeout(200)
    assert page.input_value("#t") == text


def test_typing_into_a_program_that_is_busy(desktop: Sandbox, page: Page) -> None:
    """It looks at the keyboard only after all of it was typed, and must still find every character there."""
    page.focus("#t")
    port = desktop.variables["SANDBOX_CDP_URL"].rsplit(":", 1)[1]
    found = subprocess.run(
        ["pgrep", "--full", "--oldest", f"remote-debugging-port={port}"], capture_output=True, text=True, check=True
    )
    browser = int(found.stdout)
    os.kill(browser, signal.SIGSTOP)
    try:
        act(desktop, "TYPING", text="äé€你 É🙂", use_clipboard=False)
    finally:
        os.kill(browser, signal.SIGCONT)
    page.wait_for_function("t.value.length >= 8")
    assert page.input_value("#t") == "äé€你 É🙂"


def test_typing_more_characters_than_the_keyboard_has_room_for(desktop: Sandbox, page: Page) -> None:
    page.focus("#t")
    text = "".join(map(chr, range(0x4E00, 0x4E40)))
    act(desktop, "TYPING", text=text, use_clipboard=False)
    page.wait_for_function("t.value.length >= 64")
    assert page.input_value("#t") == text


def test_keys(desktop: Sandbox, page: Page) -> None:
    page.focus("#t")
    for key in ("enter", "ArrowLeft", "page_down", "F2", "a", "?", "Delete"):
        act(desktop, "PRESS", key=key)
    keys = [e["key"] for e in events(page, "keydown") if e["key"] != "Shift"]
    assert keys == ["Enter", "ArrowLeft", "PageDown", "F2", "a", "?", "Delete"]
    act(desktop, "PRESS", key="é")
    page.wait_for_function("t.value.includes('é')")
    page.evaluate("seen.length = 0; t.value = 'some words'; t.focus()")
    act(desktop, "HOTKEY", keys=["ctrl", "a"])
    act(desktop, "KEY_DOWN", key="shift")
    act(desktop, "PRESS", key="x")
    act(desktop, "KEY_UP", key="shift")
    page.wait_for_function("t.value == 'X'")


def test_wait_does_not_hold_up_others(desktop: Sandbox) -> None:
    start = time.perf_counter()
    act(desktop, "WAIT", duration=0.3)
    assert 0.3 <= time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("MOVE_TO", {"x": 1280, "y": 10}),
        ("MOVE_TO", {"x": -1, "y": 10}),
        ("CLICK", {"x": 5}),
        ("CLICK", {"num_clicks": 9}),
        ("DRAG_TO", {"x": 10, "y": 900}),
        ("PRESS", {"key": "no such key"}),
        ("PRESS", {"key": "NoSuchKey"}),
        ("PRESS", {"key": "$(reboot)"}),
        ("PRESS", {"key": "--window"}),
        ("HOTKEY", {"keys": []}),
        ("TYPING", {"text": ""}),
        ("TYPING", {"text": "a\0b"}),
        ("WAIT", {"duration": -1}),
        ("WAIT", {"duration": 1e9}),
        ("DANCE", {}),
    ],
)
def test_nonsense_is_refused(desktop: Sandbox, kind: str, fields: dict[str, Any]) -> None:
    assert refused(desktop, kind, **fields)["code"] == "invalid_request"


def test_not_a_number_is_refused(desktop: Sandbox) -> None:
    body = json.dumps({"action_type": "MOVE_TO", "x": float("nan"), "y": 1})
    answer = desktop.client.post("/v1/browser/actions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


def test_clipboard(desktop: Sandbox, page: Page) -> None:
    for text in ("Grüße\n你好 🙂", "second", ""):
        answer = desktop.client.put("/v1/desktop/clipboard", json={"text": text})
        assert answer.status_code == 200, answer.text
        assert desktop.client.get("/v1/desktop/clipboard").json()["data"]["text"] == text
    page.fill("#t", "from the page")
    page.focus("#t")
    act(desktop, "HOTKEY", keys=["ctrl", "a"])
    act(desktop, "HOTKEY", keys=["ctrl", "c"])
    page.wait_for_timeout(200)
    assert desktop.client.get("/v1/desktop/clipboard").json()["data"]["text"] == "from the page"
    # One that is used much leaves no programs behind.
    owners = subprocess.run(["pgrep", "-c", "-P", str(desktop.process.pid), "xclip"], capture_output=True, text=True)
    assert int(owners.stdout) <= 1


def test_peer_client(desktop: Sandbox, page: Page) -> None:
    client = PeerClient(base_url=desktop.url)
    assert b"".join(client.browser.screenshot())[:4] == b"\x89PNG"
    page.focus("#t")
    for action in (
        Action_MoveTo(x=300, y=300),
        Action_Click(x=300, y=300),
        Action_DoubleClick(),
        Action_DragTo(x=310, y=300),
        Action_Scroll(dy=0),
        Action_Hotkey(keys=["ctrl", "a"]),
        Action_Typing(text="by the peer's client"),
        Action_Press(key="enter"),
    ):
        answer = client.browser.execute_action(request=action)
        assert answer.success
        assert answer.status == "success"
    page.wait_for_function('t.value.includes("by the peer\'s client")')


def test_without_a_desktop(sandbox: Sandbox) -> None:
    for answer in (
        sandbox.client.get("/v1/browser/screenshot"),
        sandbox.client.get("/v1/browser/screenshot", params={"format": "jpeg"}),
        sandbox.client.post("/v1/browser/actions", json={"action_type": "CLICK"}),
        sandbox.client.post("/v1/browser/actions", json={"action_type": "SCROLL"}),
        sandbox.client.post("/v1/browser/actions", json={"action_type": "WAIT", "duration": 0.01}),
        sandbox.client.post("/v1/display/record", json={"action": "start"}),
        sandbox.client.get("/v1/desktop/clipboard"),
        sandbox.client.put("/v1/desktop/clipboard", json={"text": "x"}),
        sandbox.client.get("/v1/desktop/info"),
    ):
        check_unavailable(answer)


def check_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "display_unavailable"
    assert answer.json()["error"]["retryable"]
