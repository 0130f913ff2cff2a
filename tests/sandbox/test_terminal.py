"""Terminals: the websocket's protocol, and the page in Chromium."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support import chromium
from tests.support.sandbox import Sandbox, running


class Client:
    """One connection; `seen` is the output so far, `messages` are all others."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen = ""
        self.messages: list[dict[str, Any]] = []

    def send(self, kind: str, data: Any) -> None:
        self.socket.send(json.dumps({"type": kind, "data": data}))

    def step(self, timeout: float = 10) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout=timeout))
        if message["type"] in ("output", "restore_output"):
            self.seen += message["data"]
        self.messages.append(message)
        return message

    def until(self, text: str) -> None:
        while text not in self.seen:
            self.step()

    def until_type(self, kind: str) -> dict[str, Any]:
        while (message := self.step())["type"] != kind:
            pass
        return message


@contextmanager
def terminal(sandbox: Sandbox, path: str = "/v1/shell/ws", query: str = "") -> Iterator[Client]:
    with connect(sandbox.url.replace("http", "ws", 1) + path + query, max_size=None) as socket:
        yield Client(socket)


@pytest.fixture(scope="module")
def page(sandbox: Sandbox) -> Iterator[Page]:
    with chromium.running() as browser, chromium.new_page(browser) as page:
        page.set_viewport_size({"width": 900, "height": 500})
        yield page


def screen(page: Page) -> str:
    script = """() => { const buffer = window.terminal.buffer.active; const lines = [];
        for (let row = 0; row < buffer.length; row++) lines.push(buffer.getLine(row).translateToString(true));
        return lines.join("\\n"); }"""
    text: str = page.evaluate(script)
    return text


def wait_for(page: Page, text: str) -> None:
    deadline = time.monotonic() + 15
    while text not in screen(page):
        assert time.monotonic() < deadline, screen(page)
        page.wait_for_timeout(50)


def test_protocol_with_input_resize_and_exit(sandbox: Sandbox) -> None:
    with terminal(sandbox, query="?exec_dir=/usr") as client:
        assert client.step()["type"] == "session_id"
        ready = client.step()
        assert (ready["type"], ready["resumed"]) == ("ready", False)
        client.send("resize", {"cols": 132, "rows": 43})
        client.send("input", "stty size; pwd; echo $TERM; tty; echo 'é'$((40+2))\n")
        client.until("é42\r\n")
        assert "43 132" in client.seen and "/usr\r\n" in client.seen and "xterm-256color" in client.seen
        assert "no job control" not in client.seen
        client.send("ping", 7)
        assert client.until_type("pong")["data"] == 7
        client.send("input", "sh -c 'echo go; exec sleep 100'\n")
        client.until("go\r\n")  # it has the terminal now: the interrupt is for it
        client.send("input", "\x03")
        client.send("input", "exit 3\n")
        assert client.until_type("exit")["data"] == 3
        with pytest.raises(ConnectionClosed) as closed:
            client.step()
        assert closed.value.rcvd and closed.value.rcvd.code == 1000


def test_plain_text_and_size_beside_the_type(sandbox: Sandbox) -> None:
    with terminal(sandbox) as client:
        client.socket.send(json.dumps({"type": "resize", "cols": 99, "rows": 9}))
        client.socket.send("stty size; echo plain$((1+1))\n")
        client.until("plain2")
        assert "9 99" in client.seen
        client.send("resize", {"cols": -5, "rows": 10**9})
        client.send("resize", "nonsense")
        client.socket.send('["no", "object"]\x03\n')
        client.send("input", "stty size\n")
        client.until("1000 1\r\n")


def test_reconnecting_replays_and_goes_on(sandbox: Sandbox) -> None:
    with terminal(sandbox, query="?session_id=again") as client:
        client.send("input", "X=kept; echo mark$((1+1)); (sleep 0.5; echo while-away) &\n")
        client.until("mark2")
    time.sleep(0.8)
    assert sandbox.client.get("/v1/shell/sessions").json()["data"]["sessions"]["again"]["status"] == "terminal"
    with terminal(sandbox, "/terminal/ws", "?session_id=again") as client:
        assert client.step()["data"] == "again"
        assert client.step()["resumed"] is True
        assert client.step()["type"] == "restore_output"
        assert "mark2" in client.seen and "while-away" in client.seen
        client.send("input", "echo still-$X\n")
        client.until("still-kept")
    assert sandbox.client.delete("/v1/shell/sessions/again").status_code == 200
    with terminal(sandbox, query="?session_id=again") as client:
        assert client.until_type("ready")["resumed"] is False


def test_closing_a_terminal_ends_what_ignores_the_hangup(sandbox: Sandbox) -> None:
    with terminal(sandbox, query="?session_id=hangup") as client:
        client.send("input", "(trap '' HUP; echo pid-$BASHPID-; exec sleep 66) & nohup setsid sleep 67 & wait\n")
        while not (found := [part for part in client.seen.split("-") if part.isdigit()]):
            client.step()
        assert sandbox.client.delete("/v1/shell/sessions/hangup").status_code == 200
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(found[0])):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_takeover(sandbox: Sandbox) -> None:
    with terminal(sandbox, query="?session_id=one") as first:
        first.until_type("ready")
        with terminal(sandbox, query="?session_id=one&takeover=false") as polite:
            assert polite.step()["code"] == "conflict"
        with terminal(sandbox, query="?session_id=one") as second:
            second.until_type("ready")
            first.until_type("taken_over")
            with pytest.raises(ConnectionClosed) as closed:
                first.step()
            assert closed.value.rcvd and closed.value.rcvd.code == 4001
            second.send("input", "echo mine$((1+1))\n")
            second.until("mine2")


def test_a_terminal_begins_where_the_session_is(sandbox: Sandbox) -> None:
    sandbox.client.post("/v1/shell/exec", json={"id": "both", "command": "cd /etc"})
    with terminal(sandbox, query="?session_id=both") as client:
        client.send("input", "pwd\n")
        client.until("/etc\r\n")


def test_a_terminal_of_a_session_whose_folder_was_removed(sandbox: Sandbox, tmp_path: Path) -> None:
    command = f"mkdir {tmp_path}/a; cd {tmp_path}/a; rmdir ../a"
    sandbox.client.post("/v1/shell/exec", json={"id": "lost", "command": command})
    with terminal(sandbox, query="?session_id=lost") as client:
        client.until(f"{tmp_path}/a is not usable; this terminal is in {sandbox.workspace}\r\n")
        client.send("input", "echo at-$PWD\n")
        client.until(f"at-{sandbox.workspace}\r\n")


def test_flood_is_held_back_by_a_slow_reader_and_stops_at_once(sandbox: Sandbox) -> None:
    with terminal(sandbox) as client:
        client.until_type("ready")
        client.send("input", "yes flooding\n")
        client.until("flooding\r\nflooding")
        before = psutil.Process(sandbox.process.pid).memory_info().rss
        time.sleep(1)
        assert psutil.Process(sandbox.process.pid).memory_info().rss - before < 16 * 2**20
        assert sandbox.client.post("/v1/shell/exec", json={"command": "echo ok"}).json()["data"]["stdout"] == "ok\n"
        client.send("input", "\x03echo over$((1+1))\n")
        client.until("over2")


def test_large_paste_arrives_whole(sandbox: Sandbox) -> None:
    with terminal(sandbox) as client:
        client.until_type("ready")
        client.send("input", "stty -echo -icanon; echo go$((1+1)); head -c 200000 | wc -c; stty sane\n")
        client.until("go2")
        client.send("input", "x" * 200_000)
        client.until("200000\r\n")


def test_limits_ends_and_missing_parts(tmp_path: Path) -> None:
    with running(tmp_path, max_sessions="1", session_idle_s="0.5", web_assets="") as own:
        with terminal(own) as client:
            client.send("input", "echo pid-$$-\n")
            while not (found := [part for part in client.seen.split("-") if part.isdigit()]):
                client.step()
            with terminal(own) as other:
                assert other.step()["code"] == "limit_reached"
        answer = own.client.get("/terminal/assets/xterm.js")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
        assert own.client.get("/terminal").status_code == 200
        assert psutil.pid_exists(int(found[0]))
    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(found[0])):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_keeps_a_terminal_that_nobody_looks_at(tmp_path: Path) -> None:
    with running(tmp_path, session_idle_s="0.5", web_assets="") as own:

        def terminals() -> set[str]:
            return set(own.client.get("/v1/shell/sessions").json()["data"]["sessions"])

        jobs = {"foreground": "sh -c 'echo go; exec sleep 300'", "background": "sleep 300 & echo go", "none": "echo go"}
        for name, command in jobs.items():
            with terminal(own, query=f"?session_id={name}") as client:
                client.send("input", f"{command}\n")
                client.until("go\r\n")
        deadline = time.monotonic() + 20
        while "none" in terminals():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.5)  # several sweeps
        assert terminals() == {"foreground", "background"}


def test_refused_names_and_assets(sandbox: Sandbox) -> None:
    with terminal(sandbox, query="?session_id=a/b") as client:
        assert client.step()["code"] == "invalid_request"
    with terminal(sandbox, query="?exec_dir=/no/such") as client:
        assert client.step()["code"] == "file_not_found"
    assert sandbox.client.get("/terminal/assets/package.json").status_code == 404
    assert sandbox.client.get("/terminal/?a=1").headers["location"] == "../terminal?a=1"


def test_what_is_typed_before_the_connection_stands_arrives(sandbox: Sandbox, page: Page) -> None:
    page.add_init_script(
        "document.addEventListener('DOMContentLoaded', () => window.terminal.input('echo early$((1+1))\\r'))"
    )
    page.goto(f"{sandbox.url}/terminal?session_id=early")
    wait_for(page, "early2")
    page.keyboard.type("echo focused$((1+1))\n")
    wait_for(page, "focused2")


def test_page(sandbox: Sandbox, page: Page) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(f"{sandbox.url}/terminal?session_id=page")
    page.wait_for_function("window.terminal && window.terminal.cols > 90")
    page.keyboard.type("ls --color=always / ; echo done$((1+1))\n")
    wait_for(page, "done2")
    columns, rows = page.evaluate("[window.terminal.cols, window.terminal.rows]")
    page.keyboard.type("stty size\n")
    wait_for(page, f"{rows} {columns}")
    page.set_viewport_size({"width": 640, "height": 400})
    page.wait_for_function(f"window.terminal.cols < {columns}")
    narrow, low = page.evaluate("[window.terminal.cols, window.terminal.rows]")
    page.keyboard.type("stty size\n")
    wait_for(page, f"{low} {narrow}")
    page.reload()
    page.wait_for_function("window.terminal && window.terminal.cols > 20")
    wait_for(page, "done2")
    with terminal(sandbox, query="?session_id=page") as other:
        other.until_type("ready")
        page.get_by_role("button", name="Use it here").wait_for()
    page.get_by_role("button", name="Use it here").click()
    page.get_by_role("button").wait_for(state="hidden")
    wait_for(page, "done2")
    page.keyboard.type("exit\n")
    page.get_by_role("button", name="New terminal").click()
    page.wait_for_timeout(300)
    page.keyboard.type("echo fresh$((1+1))\n")
    wait_for(page, "fresh2")
    assert "done2" not in screen(page)
    assert problems == []
