"""Uploads, downloads and watching."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from agent_sandbox import Sandbox as Peer
from agent_sandbox.core.api_error import ApiError

from tests.support.sandbox import Sandbox, running


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running(tmp_path_factory.mktemp("small"), upload_bytes="4096", max_watchers="2") as started:
        yield started


@pytest.fixture
def folder(sandbox: Sandbox, request: pytest.FixtureRequest) -> Path:
    path: Path = sandbox.workspace / request.node.name[:60]
    path.mkdir()
    return path


def put(sandbox: Sandbox, path: Path, content: bytes, **headers: str) -> httpx.Response:
    return sandbox.client.put("/v1/file/content", params={"path": str(path)}, content=content, headers=headers)


def get(sandbox: Sandbox, path: Path, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return sandbox.client.get("/v1/file/download", params={"path": str(path)}, headers=names)


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_content_there_and_back(sandbox: Sandbox, folder: Path) -> None:
    content = os.urandom(5 * 2**20 + 13)
    file = folder / "deep" / "file.bin"
    answer = put(sandbox, file, content).json()["data"]
    assert (answer["file_path"], answer["file_size"], answer["created"]) == (str(file), len(content), True)
    assert file.read_bytes() == content
    assert [entry.name for entry in file.parent.iterdir()] == ["file.bin"]
    got = get(sandbox, file)
    assert got.content == content
    assert got.headers["etag"] == answer["etag"]
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert put(sandbox, file, b"").json()["data"]["file_size"] == 0
    assert get(sandbox, file).content == b""
    assert error(put(sandbox, folder, b"x")) == (409, "not_a_file")
    assert error(put(sandbox, Path("/etc/x"), b"x")) == (403, "path_outside")


def test_upload_forms(sandbox: Sandbox, folder: Path) -> None:
    client = sandbox.client
    content = os.urandom(3_000_000)

    def send(files: object, data: dict[str, str] | None = None) -> httpx.Response:
        return client.post("/v1/file/upload", files=files, data=data)  # type: ignore[arg-type]

    answer = send({"file": ("name.bin", content)}, {"path": str(folder / "a.bin")})
    assert answer.json()["data"]["success"]
    assert (folder / "a.bin").read_bytes() == content
    assert send({"file": ("b.bin", b"b")}, {"path": f"{folder}/"}).json()["data"]["file_path"] == f"{folder}/b.bin"
    assert send({"file": ("../../c.bin", b"c")}, {"path": str(folder)}).json()["data"]["file_path"] == (
        f"{folder}/c.bin"
    )
    assert send({"file": ("d.bin", b"d")}).json()["data"]["file_path"] == str(sandbox.workspace / "d.bin")
    # The path may come after the file.
    late = [("file", ("e", b"late")), ("path", (None, str(folder / "e.bin")))]
    assert send(late).json()["data"]["file_path"] == f"{folder}/e.bin"
    assert (folder / "e.bin").read_bytes() == b"late"
    assert sorted(entry.name for entry in folder.iterdir()) == ["a.bin", "b.bin", "c.bin", "e.bin"]
    assert error(send({"other": (None, b"x")})) == (422, "invalid_request")
    assert error(send([("file", ("a", b"1")), ("file", ("b", b"2"))])) == (422, "invalid_request")
    assert error(client.post("/v1/file/upload", json={})) == (415, "unsupported_media_type")
    broken = client.post(
        "/v1/file/upload", content=b"nonsense", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert error(broken) == (422, "invalid_request")
    assert not [entry for entry in sandbox.workspace.iterdir() if entry.name.startswith(".sandbox-")]


def test_an_interrupted_upload_is_removed_by_the_next_server(tmp_path: Path) -> None:
    def half(sandbox: Sandbox, path: Path) -> http.client.HTTPConnection:
        upload = http.client.HTTPConnection("127.0.0.1", sandbox.port)
        upload.putrequest("PUT", f"/v1/file/content?{urlencode({'path': str(path)})}")
        upload.putheader("Content-Length", str(8 * 2**20))
        upload.endheaders()
        upload.send(b"x" * 4 * 2**20)
        deadline = time.monotonic() + 10
        while not list(path.parent.glob(".sandbox-*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return upload

    def listed(sandbox: Sandbox, folder: Path) -> list[str]:
        body = {"path": str(folder), "show_hidden": True}
        found = sandbox.client.post("/v1/file/list", json=body).json()["data"]["files"]
        return [row["name"] for row in found]

    workspace, elsewhere = tmp_path / "workspace" / "deep", tmp_path / "elsewhere"
    for folder in (workspace, elsewhere):
        folder.mkdir(parents=True)
    (workspace / ".sandbox-notes.txt").write_text("mine")
    with running(tmp_path) as sandbox:
        uploads = [half(sandbox, folder / "a") for folder in (workspace, elsewhere)]
        assert (listed(sandbox, workspace), listed(sandbox, elsewhere)) == ([".sandbox-notes.txt"], [])
        sandbox.process.kill()
        sandbox.process.wait()
        for upload in uploads:
            upload.close()
    with running(tmp_path) as sandbox:
        deadline = time.monotonic() + 20
        while (names := [entry.name for entry in workspace.iterdir()]) != [".sandbox-notes.txt"]:
            assert time.monotonic() < deadline, names
            time.sleep(0.05)
        # Elsewhere another server may be at work; its leftovers can be seen, and deleted.
        [left] = listed(sandbox, elsewhere)
        watcher = create(sandbox, elsewhere)
        assert sandbox.client.post("/v1/file/delete", json={"path": str(elsewhere / left)}).status_code == 200
        assert ("remove", left) in events_until(sandbox, watcher, left)


def test_upload_limit(small: Sandbox) -> None:
    file = small.workspace / "big"
    assert error(put(small, file, b"x" * 5000)) == (413, "too_large")
    unannounced = small.client.put(
        "/v1/file/content", params={"path": str(file)}, content=(b"x" * 1000 for _ in range(9))
    )
    assert error(unannounced) == (413, "too_large")
    assert "SANDBOX_UPLOAD_BYTES" in unannounced.json()["message"]
    form = small.client.post("/v1/file/upload", files={"file": ("big", b"x" * 5000)})
    assert error(form) == (413, "too_large")
    assert list(small.workspace.iterdir()) == []
    assert put(small, file, b"x" * 4096).status_code == 200


def test_broken_off_upload_leaves_nothing(sandbox: Sandbox, folder: Path) -> None:
    (folder / "a").write_text("before")
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port)
    connection.putrequest("PUT", "/v1/file/content?" + urlencode({"path": str(folder / "a")}))
    connection.putheader("Content-Length", "10000000")
    connection.endheaders()
    connection.send(b"x" * 3_000_000)
    time.sleep(0.2)
    connection.close()
    deadline = time.monotonic() + 5
    while len(list(folder.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [(entry.name, entry.read_text()) for entry in folder.iterdir()] == [("a", "before")]


@pytest.mark.parametrize("expect", [False, True])
def test_what_follows_a_large_upload_on_its_connection(sandbox: Sandbox, folder: Path, expect: bool) -> None:
    """The body is received beside the HTTP parser, which must find the next request behind it, however it is cut."""
    content = os.urandom(3 * 2**20 + 7)
    address = urlencode({"path": str(folder / "a")})
    head = f"PUT /v1/file/content?{address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
    head += "Expect: 100-continue\r\n\r\n" if expect else "\r\n"
    after = f"GET /v1/file/download?{address} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", sandbox.port), timeout=30) as connection,
        connection.makefile("rb") as answers,  # one for both answers: they may arrive together
    ):
        for pause in (0.0, 0.1):
            connection.sendall(head.encode())
            if expect:
                assert (answers.readline(), answers.readline()) == (b"HTTP/1.1 100 Continue\r\n", b"\r\n")
            connection.sendall(content[:2_000_000])
            time.sleep(pause)
            connection.sendall(content[2_000_000:] + after.encode())
            for body in (None, content):
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                received = answers.read(int(http.client.parse_headers(answers)["Content-Length"]))
                assert body is None or received == body


def test_a_refused_large_upload_is_answered_and_its_connection_goes_on(sandbox: Sandbox, folder: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=30)
    address = "/v1/file/content?" + urlencode({"path": str(folder / "a")})
    for tag, status in (("*", 200), ('"another"', 412), ("*", 200)):
        if tag == "*":
            (folder / "a").write_text("before")
        connection.request("PUT", address, b"x" * (4 * 2**20), {"If-Match": tag})
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (status, True)
    connection.close()


def test_a_slow_large_upload_does_not_keep_others_from_working(sandbox: Sandbox, folder: Path) -> None:
    address = "/v1/file/content?"
    slow = []
    for number in range(50):  # more than there are worker threads
        upload = http.client.HTTPConnection("127.0.0.1", sandbox.port)
        upload.putrequest("PUT", address + urlencode({"path": str(folder / str(number))}))
        upload.putheader("Content-Length", str(2 * 2**20))
        upload.endheaders()
        upload.send(b"x" * 100)
        slow.append(upload)
    assert put(sandbox, folder / "quick", b"x" * (2 * 2**20)).status_code == 200
    for upload in slow:
        upload.send(b"y" * (2 * 2**20 - 100))
        assert upload.getresponse().status == 200
        upload.close()


def test_ranges(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a"
    file.write_bytes(b"0123456789")
    for asked, expected, told in (
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-100", b"89", "bytes 8-9/10"),
    ):
        part = get(sandbox, file, range=asked)
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, expected, told)
    for asked in ("bytes=4-2", "bytes=0-1,3-4", "lines=1-2", "bytes=-"):
        assert (get(sandbox, file, range=asked).status_code, len(get(sandbox, file, range=asked).content)) == (200, 10)
    beyond = get(sandbox, file, range="bytes=10-")
    assert error(beyond) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == "bytes */10"
    whole = get(sandbox, file)
    assert get(sandbox, file, range="bytes=0-1", if_range=whole.headers["etag"]).status_code == 206
    assert get(sandbox, file, range="bytes=0-1", if_range=whole.headers["last-modified"]).status_code == 206
    assert get(sandbox, file, range="bytes=0-1", if_range='"other"').status_code == 200
    assert get(sandbox, file, if_none_match=whole.headers["etag"]).status_code == 304
    assert get(sandbox, file, if_modified_since=whole.headers["last-modified"]).status_code == 304
    head = sandbox.client.head("/v1/file/download", params={"path": str(file)})
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")


def test_download_errors_and_names(sandbox: Sandbox, folder: Path) -> None:
    assert error(get(sandbox, folder / "none")) == (404, "file_not_found")
    assert error(get(sandbox, folder)) == (409, "not_a_file")
    assert error(get(sandbox, Path("/etc/passwd"))) == (403, "path_outside")
    os.mkfifo(folder / "pipe")
    assert error(get(sandbox, folder / "pipe")) == (409, "not_a_file")
    name = 'ü"\r\nx-evil: 1;\\.txt'
    (folder / name).write_text("x")
    answer = get(sandbox, folder / name)
    assert "x-evil" not in answer.headers
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"____x-evil: 1;_.txt\"; filename*=UTF-8''%C3%BC%22%0D%0Ax-evil%3A%201%3B%5C.txt"
    )


def test_inline_runs_no_scripts(sandbox: Sandbox, folder: Path) -> None:
    for name, kind, form in (
        ("a.png", "inline", "image/png"),
        ("a.html", "inline", "text/plain; charset=utf-8"),
        ("a.svg", "attachment", "application/octet-stream"),
        ("a", "attachment", "application/octet-stream"),
    ):
        (folder / name).write_text("<script>")
        answer = sandbox.client.get("/v1/file/download", params={"path": str(folder / name), "inline": True})
        assert answer.headers["content-type"] == form
        assert answer.headers["content-disposition"].startswith(kind)
        assert answer.headers["content-security-policy"].startswith("sandbox")


@pytest.mark.parametrize("policy", ["abort", "ignore"])
def test_change_while_downloading(sandbox: Sandbox, folder: Path, policy: str) -> None:
    file = folder / "a"
    content = os.urandom(2**20) * 48
    file.write_bytes(content)
    digest = hashlib.sha256()
    size = 0
    query = {"path": str(file), "change_policy": policy}
    with sandbox.client.stream("GET", "/v1/file/download", params=query) as answer:
        try:
            for chunk in answer.iter_raw(65536):
                if not size:
                    (folder / "b").write_bytes(b"other")
                    (folder / "b").rename(file)
                digest.update(chunk)
                size += len(chunk)
            broken = False
        except httpx.RemoteProtocolError:
            broken = True
    assert broken == (policy == "abort")
    if policy == "ignore":
        assert digest.digest() == hashlib.sha256(content).digest(), "what was opened is sent to its end"


def test_shrinking_download_is_broken_off(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a"
    file.write_bytes(b"x" * 48 * 2**20)
    with (
        sandbox.client.stream("GET", "/v1/file/download", params={"path": str(file)}) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        for _ in answer.iter_raw(65536):
            os.truncate(file, 100)


def test_peer_client_transfers(sandbox: Sandbox, folder: Path) -> None:
    client = Peer(base_url=sandbox.url).file
    content = os.urandom(300_000)
    answer = client.upload_file(file=("x.bin", content), path=str(folder / "x.bin"))
    assert answer.data
    assert answer.data.file_size == len(content)
    assert b"".join(client.download_file(path=str(folder / "x.bin"))) == content
    with pytest.raises(ApiError) as failure:
        list(client.download_file(path=str(folder / "none")))
    assert failure.value.status_code == 404, "an error is not taken for the file"


# Watching


def create(sandbox: Sandbox, path: Path, **options: object) -> str:
    answer = sandbox.client.post("/v1/file/watch", json={"path": str(path), "debounce": 50, **options})
    assert answer.status_code == 200, answer.text
    watcher: str = answer.json()["data"]["watcher_id"]
    return watcher


def events_until(sandbox: Sandbox, watcher: str, name: str, cursor: int = 0) -> list[tuple[str, str]]:
    """Types and names, until something happens to `name`."""
    found: list[tuple[str, str]] = []
    for _ in range(20):
        polled = sandbox.client.post(f"/v1/file/watch/{watcher}/poll", json={"cursor": cursor, "timeout": 5}).json()
        cursor = polled["data"]["cursor"]
        found += [(event["type"], Path(event["path"]).name) for event in polled["data"]["events"]]
        if any(event[1] == name for event in found):
            return found
    raise AssertionError(found)


def test_watch_a_folder(sandbox: Sandbox, folder: Path) -> None:
    (folder / "old").write_text("1")
    (folder / "node_modules").mkdir()
    watcher = create(sandbox, folder)
    assert watcher in [row["watcher_id"] for row in sandbox.client.get("/v1/file/watch").json()["data"]["watchers"]]
    (folder / "node_modules" / "x").write_text("x")
    (folder / "sub").mkdir()
    time.sleep(0.2)
    (folder / "sub" / "new").write_text("2")
    found = events_until(sandbox, watcher, "new")
    assert ("create", "sub") in found
    assert ("create", "new") in found
    assert "x" not in [name for _, name in found]
    sandbox.client.post("/v1/file/write", json={"file": str(folder / "old"), "content": "2"})
    cursor = sandbox.client.get("/v1/file/watch").json()["data"]["watchers"][0]["cursor"]
    found = events_until(sandbox, watcher, "old", 0)
    assert ("write", "old") in found, "a file that is replaced was written, not created"
    assert not [name for _, name in found if name.startswith(".sandbox-")]
    (folder / "old").unlink()
    deadline = time.monotonic() + 5
    while ("remove", "old") not in events_until(sandbox, watcher, "old", cursor) and time.monotonic() < deadline:
        pass
    assert ("remove", "old") in events_until(sandbox, watcher, "old", cursor)
    assert sandbox.client.delete(f"/v1/file/watch/{watcher}").json()["data"]["stopped"]
    assert error(sandbox.client.delete(f"/v1/file/watch/{watcher}")) == (404, "watcher_not_found")
    assert error(sandbox.client.post(f"/v1/file/watch/{watcher}/poll", json={})) == (404, "watcher_not_found")


def test_watch_a_file_through_replacement(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a"
    file.write_text("1")
    watcher = create(sandbox, file)
    (folder / "b").write_text("not this")
    for content in ("2", "3"):
        seen = len(events_until(sandbox, watcher, "a")) if content == "3" else 0
        sandbox.client.post("/v1/file/write", json={"file": str(file), "content": content})
        assert ("write", "a") in events_until(sandbox, watcher, "a", seen)
    assert {name for _, name in events_until(sandbox, watcher, "a")} == {"a"}
    sandbox.client.delete(f"/v1/file/watch/{watcher}")


def test_watch_tells_renames_and_changes_of_mode(sandbox: Sandbox, folder: Path) -> None:
    (folder / "deep").mkdir()
    for name in ("one", "two", "deep/three"):
        (folder / name).write_text(name)
    watcher = create(sandbox, folder)
    cursor = 0

    def after(change: Callable[[], object], last: str) -> list[tuple[str, ...]]:
        """What was told until something of the path `last`: type, path and new path."""
        nonlocal cursor
        told: list[tuple[str, ...]] = []
        change()
        for _ in range(20):
            body = {"cursor": cursor, "timeout": 5}
            polled = sandbox.client.post(f"/v1/file/watch/{watcher}/poll", json=body).json()["data"]
            cursor = polled["cursor"]
            for event in polled["events"]:
                paths = [str(Path(event[name]).relative_to(folder)) for name in ("path", "new_path") if event[name]]
                told.append((event["type"], *paths))
            if last in [path for _, path, *_ in told]:
                return told
        raise AssertionError(told)

    moved = after(lambda: (folder / "one").rename(folder / "moved"), "moved")
    assert moved == [("rename", "one", "moved"), ("create", "moved")]
    assert after(lambda: (folder / "two").chmod(0o600), "two") == [("chmod", "two")]
    moved = after(lambda: (folder / "deep").rename(folder / "lower"), "lower")
    assert moved == [("rename", "deep", "lower"), ("create", "lower")]
    told = after(lambda: (folder / "lower/three").write_text("x"), "lower/three")
    assert {event for event in told if event[1] == "lower/three"} == {("write", "lower/three")}
    assert ("write", "two") in after(lambda: (folder / "two").write_text("more"), "two")
    assert ("remove", "two") in after(lambda: (folder / "two").unlink(), "two")

    # What takes the place of a deleted file, and perhaps its inode, is not that file.
    def replace() -> None:
        (folder / "moved").unlink()
        (folder / "new").write_text("another one")

    told = after(replace, "new")
    assert {("remove", "moved"), ("create", "new")} <= set(told)
    sandbox.client.delete(f"/v1/file/watch/{watcher}")


def holds(sandbox: Sandbox, path: Path) -> bool:
    """Whether the server has the file open."""
    found = []
    for descriptor in Path(f"/proc/{sandbox.process.pid}/fd").iterdir():
        with suppress(OSError):
            found.append(descriptor.readlink())
    return path in found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda file: file.rename(file.with_name("elsewhere")), "rename"),
        (lambda file: file.unlink(), "remove"),
        (lambda file: file.chmod(0o600), "chmod"),
        (lambda file: file.write_text("other"), "write"),
    ],
)
def test_wait_tells_what_happened(
    sandbox: Sandbox, tmp_path: Path, change: Callable[[Path], object], expected: str
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    results: list[dict[str, Any]] = []

    def wait() -> None:
        answer = httpx.post(f"{sandbox.url}/v1/file/watch/wait", json={"path": str(file), "timeout": 20}, timeout=30)
        results.append(answer.json()["data"])

    thread = threading.Thread(target=wait)
    thread.start()
    while not holds(sandbox, file):
        assert thread.is_alive()
        time.sleep(0.02)
    change(file)
    thread.join()
    assert results[0]["event"]["type"] == expected


def test_watch_patterns_and_cursor(sandbox: Sandbox, folder: Path) -> None:
    watcher = create(sandbox, folder, include_patterns=["*.py"], exclude=["b*"])
    for name in ("a.txt", "b.py", "c.py", "d.py"):
        (folder / name).touch()
    assert {name for _, name in events_until(sandbox, watcher, "d.py")} == {"c.py", "d.py"}

    def poll(**body: int) -> dict[str, object]:
        data: dict[str, object] = sandbox.client.post(f"/v1/file/watch/{watcher}/poll", json=body).json()["data"]
        return data

    first = poll(limit=1)
    assert (first["cursor"], first["has_more"]) == (1, True)
    start = time.monotonic()
    assert poll(cursor=1000, timeout=1)["events"] == []
    assert 0.9 < time.monotonic() - start < 3
    sandbox.client.delete(f"/v1/file/watch/{watcher}")


def test_event_stream(sandbox: Sandbox, folder: Path) -> None:
    watcher = create(sandbox, folder)
    with sandbox.client.stream("GET", f"/v1/file/watch/{watcher}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        (folder / "a").write_text("x")
        lines = stream.iter_lines()
        identity = next(line for line in lines if line.startswith("id: "))
        event = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
        assert (event["type"], event["path"]) == ("create", str(folder / "a"))
        httpx.delete(f"{sandbox.url}/v1/file/watch/{watcher}")
        assert "event: end" in list(lines)
    assert identity == "id: 1"


def test_wait(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "not" / "yet" / "there"

    def later() -> None:
        time.sleep(0.3)
        file.parent.mkdir(parents=True)
        file.write_text("x")

    thread = threading.Thread(target=later)
    thread.start()
    wait = {"path": str(file), "timeout": 10, "event_types": ["create"]}
    waited = sandbox.client.post("/v1/file/watch/wait", json=wait).json()["data"]
    thread.join()
    assert (waited["triggered"], waited["event"]["type"]) == (True, "create")
    assert sandbox.client.post("/v1/file/watch/wait", json={**wait, "accept_existing": True}).json()["data"][
        "triggered"
    ]
    waited = sandbox.client.post("/v1/file/watch/wait", json={**wait, "timeout": 1}).json()["data"]
    assert (waited["triggered"], waited["timed_out"]) == (False, True)


def test_limits_of_watchers(small: Sandbox) -> None:
    folder = small.workspace / "watched"
    folder.mkdir()
    watchers = [create(small, folder) for _ in range(2)]
    assert error(small.client.post("/v1/file/watch", json={"path": str(folder)})) == (429, "limit_reached")
    for watcher in watchers:
        small.client.delete(f"/v1/file/watch/{watcher}")
    assert error(small.client.post("/v1/file/watch", json={"path": f"{folder}/none"})) == (404, "file_not_found")
    assert error(small.client.post("/v1/file/watch", json={"path": "/etc"})) == (403, "path_outside")
    create(small, folder)


def test_peer_client_watches(sandbox: Sandbox, folder: Path) -> None:
    client = Peer(base_url=sandbox.url).file
    watcher = client.watch_create(path=str(folder), debounce=50)["data"]["watcher_id"]
    (folder / "a").write_text("x")
    polled = client.watch_poll(watcher, timeout=5)
    assert polled["data"]["events"][0]["type"] == "create"
    assert client.watch_events(watcher)["data"]["events"], "it cannot read an endless stream"
    assert client.watch_list()["data"]["watchers"]
    assert client.watch_wait(path=str(folder / "b"), timeout=1)["data"]["timed_out"]
    assert client.watch_stop(watcher)["data"]["stopped"]
