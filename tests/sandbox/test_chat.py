"""What Open WebUI asks of the sandbox: tools, file browser, terminal."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.sandbox import Sandbox, running

BASE = "/terminal-server"
TOOLS = {
    "run_command", "command_output", "stop_command", "run_code", "list_files", "read_file", "display_file",
    "write_file", "replace_file_content", "grep_search", "glob_search", "open_page", "screenshot_page",
}  # fmt: skip


def ask(sandbox: Sandbox, method: str, path: str, chat: str = "one", **options: Any) -> Any:
    response = sandbox.client.request(method, BASE + path, headers={"X-Session-Id": chat}, **options)
    assert response.status_code == 200, response.text
    return response.json()


def run(sandbox: Sandbox, command: str, chat: str = "one", **options: Any) -> Any:
    return ask(sandbox, "POST", "/execute", chat, json={"command": command, **options})


def test_the_tools_are_described_for_the_model(sandbox: Sandbox) -> None:
    document = sandbox.client.get(f"{BASE}/openapi.json").json()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert {operation["operationId"] for operation in operations} == TOOLS
    assert all(operation["summary"] for operation in operations)
    assert "/terminal-server" not in json.dumps(document["paths"])


def test_a_chat_keeps_its_folder_and_variables(sandbox: Sandbox) -> None:
    assert run(sandbox, "mkdir -p deep; cd deep; export NAME=ada")["exit_code"] == 0
    assert run(sandbox, "pwd; echo $NAME")["stdout"] == f"{sandbox.workspace}/deep\nada\n"
    assert ask(sandbox, "GET", "/files/cwd")["cwd"] == f"{sandbox.workspace}/deep"
    assert run(sandbox, "pwd; echo $NAME", "two")["stdout"] == f"{sandbox.workspace}\n\n"
    ask(sandbox, "POST", "/files/cwd", json={"path": str(sandbox.workspace)})
    assert run(sandbox, "pwd")["stdout"] == f"{sandbox.workspace}\n"


def test_a_command_that_goes_on_can_be_followed_and_stopped(sandbox: Sandbox) -> None:
    started = run(sandbox, "echo first; sleep 60", "long", timeout=0.3)
    assert (started["status"], started["stdout"]) == ("running", "first\n")
    assert ask(sandbox, "GET", f"/execute/{started['id']}", "long")["status"] == "running"
    assert ask(sandbox, "DELETE", f"/execute/{started['id']}", "long")["status"] == "killed"


def test_a_command_that_fails_tells_how(sandbox: Sandbox) -> None:
    failed = run(sandbox, "echo wrong >&2; exit 3")
    assert (failed["exit_code"], failed["stderr"], failed["status"]) == (3, "wrong\n", "completed")


def test_code(sandbox: Sandbox) -> None:
    done = ask(sandbox, "POST", "/code", json={"code": "print('out')\n2 ** 10"})
    assert (done["status"], done["stdout"], done["values"]) == ("ok", "out\n", ["1024"])
    failed = ask(sandbox, "POST", "/code", json={"code": "1 / 0"})
    assert "ZeroDivisionError" in "".join(failed["traceback"])
    script = {"code": "console.log(6 * 7)", "language": "javascript"}
    assert ask(sandbox, "POST", "/code", json=script)["stdout"] == "42\n"


def test_files_by_relative_paths(sandbox: Sandbox) -> None:
    written = ask(sandbox, "POST", "/files/write", json={"path": "notes/a.txt", "content": "one\ntwo\nthree\n"})
    assert written == {"path": f"{sandbox.workspace}/notes/a.txt", "size": 14}
    second = ask(sandbox, "GET", "/files/read", params={"path": "notes/a.txt", "start_line": 2, "end_line": 2})
    assert second["content"].strip() == "two"
    replaced = ask(sandbox, "POST", "/files/replace", json={"path": "notes/a.txt", "target": "two", "replacement": "2"})
    assert replaced["replaced"] == 1
    listed = ask(sandbox, "GET", "/files/list", params={"directory": "notes"})
    assert [(entry["name"], entry["type"]) for entry in listed["entries"]] == [("a.txt", "file")]
    found = ask(sandbox, "GET", "/files/grep", params={"query": "three"})
    assert [(match["line"], match["text"].strip()) for match in found["matches"]] == [(3, "three")]
    named = ask(sandbox, "GET", "/files/glob", params={"pattern": "a.txt"})
    assert [match["path"] for match in named["matches"]] == [f"{sandbox.workspace}/notes/a.txt"]
    shown = ask(sandbox, "GET", "/files/display", params={"path": "notes/a.txt"})
    assert shown == {"path": f"{sandbox.workspace}/notes/a.txt", "exists": True}


def test_a_large_file_is_read_in_parts(sandbox: Sandbox) -> None:
    lines = [f"line {number}" for number in range(1, 400_001)]
    (sandbox.workspace / "large.txt").write_text("\n".join(lines) + "\n")
    first = ask(sandbox, "GET", "/files/read", params={"path": "large.txt"})
    assert first["content"].split("\n") == lines[:2000]
    second = ask(sandbox, "GET", "/files/read", params={"path": "large.txt", "start_line": first["next_line"]})
    assert second["content"].split("\n") == lines[2000:4000]
    last = ask(sandbox, "GET", "/files/read", params={"path": "large.txt", "start_line": 399_999})
    assert (last["content"].split("\n"), last["total_lines"]) == (lines[-2:], 400_000)
    assert "next_line" not in last
    (sandbox.workspace / "line.js").write_text("x" * 5_000_000)
    long = ask(sandbox, "GET", "/files/read", params={"path": "line.js"})
    assert len(long["content"]) + long["omitted_chars"] == 5_000_000
    assert len(long["content"]) <= 50_000
    backwards = sandbox.client.get(f"{BASE}/files/read", params={"path": "line.js", "start_line": 3, "end_line": 2})
    assert backwards.json()["error"]["code"] == "invalid_request"


def test_the_file_browser(sandbox: Sandbox) -> None:
    folder = f"{sandbox.workspace}/panel"
    ask(sandbox, "POST", "/files/mkdir", json={"path": folder})
    form = {"file": ("page.html", b"<p>hi</p>", "text/html")}
    stored = ask(sandbox, "POST", "/files/upload", params={"directory": folder}, files=form)
    assert stored == {"path": f"{folder}/page.html", "size": 9}
    for path in (f"/files/view?path={folder}/page.html", f"/files/serve{folder}/page.html"):
        assert sandbox.client.get(BASE + path).content == b"<p>hi</p>"
    ask(sandbox, "POST", "/files/move", json={"source": f"{folder}/page.html", "destination": f"{folder}/b.html"})
    archive = sandbox.client.post(f"{BASE}/files/archive", json={"paths": [folder]})
    assert archive.headers["content-disposition"] == 'attachment; filename="panel.zip"'
    with zipfile.ZipFile(io.BytesIO(archive.content)) as files:
        assert files.namelist() == ["panel/b.html"]
    ask(sandbox, "DELETE", "/files/delete", params={"path": folder})
    assert sandbox.client.get(f"{BASE}/files/view?path={folder}/b.html").status_code == 404


def test_an_archive_of_whatever_is_there(sandbox: Sandbox) -> None:
    folder = sandbox.workspace / "packed"
    (folder / "same").mkdir(parents=True)
    (folder / "old").write_text("1970")
    os.utime(folder / "old", (0, 0))
    (folder / "same" / "old").write_text("another")
    Path(os.fsdecode(bytes(folder / "latin-") + b"\xe9")).write_text("no Unicode")
    Path(os.fsdecode(bytes(folder / "latin-") + b"\xe8")).write_text("no Unicode")
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")

    def archive(*paths: str) -> dict[str, bytes]:
        answer = sandbox.client.post(f"{BASE}/files/archive", json={"paths": list(paths)})
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.content)) as files:
            return {name: files.read(name) for name in files.namelist()}

    server = psutil.Process(sandbox.process.pid)
    archive(str(folder))
    before = server.num_fds()
    for _ in range(5):
        assert archive(str(folder)) == {
            "packed/latin-\ufffd": b"no Unicode", "packed/latin-\ufffd_": b"no Unicode",
            "packed/old": b"1970", "packed/same/old": b"another",
        }  # fmt: skip
    assert server.num_fds() < before + 5, "no descriptor stays open"
    assert archive(f"{folder}/old", f"{folder}/same/old") == {"old": b"1970", "same/old": b"another"}
    missing = sandbox.client.post(f"{BASE}/files/archive", json={"paths": [f"{folder}/none"]})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "file_not_found")


def test_an_archive_ends_when_its_caller_leaves(sandbox: Sandbox) -> None:
    endless = sandbox.workspace / "endless"
    with endless.open("wb") as file:
        file.truncate(2**40)
    server = psutil.Process(sandbox.process.pid)

    def is_read() -> bool:
        return str(endless) in [file.path for file in server.open_files()]

    try:
        with sandbox.client.stream("POST", f"{BASE}/files/archive", json={"paths": [str(endless)]}) as answer:
            # The head of an archive comes before its first file is opened.
            blocks = answer.iter_raw()
            while not is_read():
                next(blocks)
        deadline = time.monotonic() + 60
        while is_read():
            assert time.monotonic() < deadline, "it goes on for nobody"
            time.sleep(0.05)
    finally:
        endless.unlink()


@pytest.mark.parametrize(
    ("path", "code"),
    [("/etc/passwd", "path_outside"), ("../" * 20 + "etc/passwd", "path_outside"), ("missing", "file_not_found")],
)
def test_a_refusal_says_why(sandbox: Sandbox, path: str, code: str) -> None:
    response = sandbox.client.get(f"{BASE}/files/read", params={"path": path})
    assert response.json()["error"]["code"] == code
    assert response.status_code >= 400


def test_the_terminal(sandbox: Sandbox) -> None:
    terminal = ask(sandbox, "POST", "/api/terminals")["id"]
    address = f"{sandbox.url.replace('http', 'ws')}{BASE}/api/terminals/{terminal}"
    with connect(address) as websocket:
        websocket.send(json.dumps({"type": "auth", "token": "", "chat_id": "one"}))
        websocket.send(json.dumps({"type": "resize", "cols": 99, "rows": 33}))
        websocket.send(b"stty size; echo $((6 * 7))\n")
        seen = b""
        while b"42\r\n" not in seen:
            part = websocket.recv(timeout=10)
            assert isinstance(part, bytes)
            seen += part
    assert b"33 99" in seen
    # Leaving ends it.
    for _ in range(50):
        gone = sandbox.client.delete(f"{BASE}/api/terminals/{terminal}")
        if gone.status_code == 404:
            break
    assert gone.json()["error"]["code"] == "session_not_found"


def test_a_terminal_that_is_not_there_is_closed(sandbox: Sandbox) -> None:
    address = f"{sandbox.url.replace('http', 'ws')}{BASE}/api/terminals/none"
    with connect(address) as websocket, pytest.raises(ConnectionClosed, match="no such terminal"):
        websocket.recv(timeout=10)


def test_the_page_is_told_what_there_is(sandbox: Sandbox) -> None:
    assert ask(sandbox, "GET", "/api/config")["features"]["terminal"] is True
    assert str(sandbox.workspace) in ask(sandbox, "GET", "/system")["prompt"]


def test_with_authentication_the_terminal_takes_its_key_in_the_first_message(tmp_path: Path) -> None:
    """Open WebUI sends no header with a websocket."""
    key = "key-of-the-chat-page"
    with running(tmp_path, auth="1", api_keys=key) as sandbox:
        address = f"{sandbox.url.replace('http', 'ws')}{BASE}/api/terminals"
        assert sandbox.client.post(f"{BASE}/api/terminals").status_code == 401
        headers = {"Authorization": f"Bearer {key}", "X-Session-Id": "one"}
        terminal = sandbox.client.post(f"{BASE}/api/terminals", headers=headers).json()["id"]
        messages: list[Any] = [{"token": "wrong"}, {"token": ""}, {}, {"token": [key]}, [], "no JSON"]
        messages += [{"token": "\ud800"}, "[" * 100_000]
        for message in messages:
            with connect(f"{address}/{terminal}") as websocket, pytest.raises(ConnectionClosed) as closed:
                websocket.send(message if isinstance(message, str) else json.dumps(message))
                websocket.send(b"touch entered\n")
                websocket.recv(timeout=10)
            assert closed.value.rcvd and closed.value.rcvd.code == 4001
        with connect(f"{address}/{terminal}") as websocket:
            websocket.send(json.dumps({"type": "auth", "token": key}))
            websocket.send(b"ls; echo $((6 * 7))\n")
            seen = b""
            while b"42\r\n" not in seen:
                seen += websocket.recv(timeout=10)  # type: ignore[operator]
        assert b"entered" not in seen
        # Every other websocket still wants it in the request.
        for path in ("/v1/shell/ws", "/terminal-server/api", "/terminal-server/api/terminalsx/1"):
            with pytest.raises(InvalidStatus) as refused, connect(sandbox.url.replace("http", "ws") + path):
                pass
            assert refused.value.response.status_code == 401
