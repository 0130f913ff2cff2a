"""Reading, writing, listing, searching and editing of files."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from agent_sandbox import Sandbox as Peer

from sandbox_api.file import conditions, tree
from tests.support.sandbox import Sandbox, running


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """With small limits, and without ripgrep."""
    empty = tmp_path_factory.mktemp("bin")
    limits = {"read_bytes": "2048", "body_bytes": "8192", "upload_bytes": "4096", "search_timeout_s": "1"}
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(empty))
            started = stack.enter_context(running(tmp_path_factory.mktemp("small"), **limits))
        yield started


@pytest.fixture
def folder(sandbox: Sandbox, request: pytest.FixtureRequest) -> Path:
    path: Path = sandbox.workspace / request.node.name[:60].replace("/", "_")
    path.mkdir()
    return path


def call(sandbox: Sandbox, route: str, headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
    answer = sandbox.client.post(f"/v1/file/{route}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def refused(sandbox: Sandbox, route: str, status: int, code: str, headers: Any = None, **body: Any) -> dict[str, Any]:
    answer = sandbox.client.post(f"/v1/file/{route}", json=body, headers=headers)
    result: dict[str, Any] = answer.json()
    assert (answer.status_code, result["error"]["code"]) == (status, code), answer.text
    assert result["error"]["trace_id"] == answer.headers["x-trace-id"]
    return result


# Reading


def test_read_ranges_of_lines(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.txt"
    file.write_bytes(b"zero\none\r\ntwo\nthree")

    def read(**ranges: Any) -> Any:
        return call(sandbox, "read", file=str(file), **ranges)

    assert read()["content"] == "zero\none\r\ntwo\nthree"
    assert read()["total_lines"] == 4
    assert read(start_line=1, end_line=3)["content"] == "one\r\ntwo"
    assert read(start_line=1, end_line=2)["content"] == "one"
    assert read(start_line=3)["content"] == "three"
    assert read(end_line=0)["content"] == ""
    beyond = read(start_line=9)
    assert (beyond["content"], beyond["total_lines"]) == ("", 4)
    refused(sandbox, "read", 422, "invalid_request", file=str(file), start_line=-1)
    refused(sandbox, "read", 422, "invalid_request", file=str(file), start_line=1, start_byte=1)


def test_read_ranges_of_bytes_and_base64(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.txt"
    file.write_text("aé€b")  # 1, 2, 3 and 1 bytes
    part = call(sandbox, "read", file=str(file), start_byte=2, end_byte=5)
    assert (part["content"], part["start_byte"], part["end_byte"]) == ("", 3, 3)
    part = call(sandbox, "read", file=str(file), start_byte=0, end_byte=5)
    assert (part["content"], part["end_byte"]) == ("aé", 3)
    rest = call(sandbox, "read", file=str(file), start_byte=part["end_byte"])
    assert rest["content"] == "€b"
    raw = call(sandbox, "read", file=str(file), start_byte=1, end_byte=3, encoding="base64")
    assert base64.b64decode(raw["content"]) == "é".encode()


def test_read_binary_and_byte_order_mark(sandbox: Sandbox, folder: Path) -> None:
    (folder / "bin").write_bytes(b"\x00\x01\xff")
    refused(sandbox, "read", 415, "binary_file", file=str(folder / "bin"))
    assert base64.b64decode(call(sandbox, "read", file=str(folder / "bin"), encoding="base64")["content"]) == (
        b"\x00\x01\xff"
    )
    (folder / "latin").write_bytes("é".encode("latin-1"))
    refused(sandbox, "read", 415, "binary_file", file=str(folder / "latin"))
    (folder / "bom").write_bytes(b"\xef\xbb\xbfhello")
    assert call(sandbox, "read", file=str(folder / "bom"))["content"] == "hello"


def test_read_errors(sandbox: Sandbox, folder: Path) -> None:
    refused(sandbox, "read", 422, "path_not_absolute", file="a.txt")
    refused(sandbox, "read", 403, "path_outside", file="/etc/passwd")
    refused(sandbox, "read", 422, "invalid_request", file=f"{folder}/a\0b")
    refused(sandbox, "read", 409, "not_a_file", file=str(folder))
    refused(sandbox, "read", 409, "not_a_file", file=str(sandbox.workspace))
    refused(sandbox, "read", 422, "invalid_request", file=f"{folder}/{'x' * 300}")
    refused(sandbox, "read", 501, "not_implemented", file=str(folder / "a"), sudo=True)
    (folder / "file").touch()
    refused(sandbox, "read", 409, "not_a_directory", file=f"{folder}/file/below")
    data = refused(sandbox, "read", 404, "file_not_found", file=str(folder / "none"))["data"]
    assert data["operation"] == "read"
    assert data["path"] == str(folder / "none")
    assert (data["errno"], data["errno_name"], data["error_type"]) == (2, "ENOENT", "file_not_found")
    assert data["exception_type"] == "FileNotFoundError"


def test_special_files_do_not_hang(sandbox: Sandbox, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        with contextlib.chdir(folder):  # names of sockets are short
            listener.bind("socket")
        for name in ("pipe", "socket"):
            for route, more in {
                "read": {},
                "write": {"content": "x"},
                "search": {"regex": "x"},
                "replace": {"old_str": "a", "new_str": "b"},
            }.items():
                refused(sandbox, route, 409, "not_a_file", file=str(folder / name), **more)
            refused(sandbox, "write", 409, "not_a_file", file=str(folder / name), content="x", append=True)
            refused(sandbox, "grep", 409, "not_a_file", path=str(folder / name), pattern="x")
        assert call(sandbox, "grep", path=str(folder), pattern="x")["matches"] == []
        assert call(sandbox, "stat", path=str(folder / "pipe"))["type"] == "other"


def test_links_are_followed_inside_and_refused_outside(sandbox: Sandbox, folder: Path) -> None:
    (folder / "file").write_text("content")
    (folder / "inner").symlink_to("file")
    (folder / "outer").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    (folder / "loop").symlink_to("loop")
    assert call(sandbox, "read", file=str(folder / "inner"))["content"] == "content"
    for name in ("outer", "etc/passwd"):
        refused(sandbox, "read", 403, "path_outside", file=str(folder / name))
        refused(sandbox, "write", 403, "path_outside", file=str(folder / name), content="x")
    refused(sandbox, "write", 403, "path_outside", file=f"{folder}/etc/new/file", content="x")
    refused(sandbox, "read", 422, "invalid_request", file=str(folder / "loop"))
    call(sandbox, "write", file=str(folder / "inner"), content="new")
    assert (folder / "file").read_text() == "new"
    assert (folder / "inner").is_symlink()
    # Deleting and moving are meant for the link itself.
    call(sandbox, "delete", path=str(folder / "outer"))
    assert Path("/etc/passwd").exists()
    link = call(sandbox, "stat", path=str(folder / "inner"), follow=False)
    assert (link["type"], link["target"]) == ("link", "file")
    listed = {row["name"]: row for row in call(sandbox, "list", path=str(folder), recursive=True)["files"]}
    assert listed["etc"]["is_symlink"]
    assert len(listed) == 4, "links are told of, not entered"


def test_swapped_links_never_lead_writes_outside(sandbox: Sandbox, folder: Path) -> None:
    """While a folder is replaced by a link to another one again and again, no write goes through it."""
    outside = Path(f"/var/tmp/outside-{os.getpid()}")
    outside.mkdir()
    (folder / "real").mkdir()
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            (folder / "real").rename(folder / "aside")
            (folder / "real").symlink_to(outside)
            (folder / "real").unlink()
            (folder / "aside").rename(folder / "real")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(150):
            sandbox.client.post(
                "/v1/file/write",
                json={"file": f"{folder}/real/{number}", "content": "x", "create_parents": False},
            )
    finally:
        over.set()
        thread.join()
    assert list(outside.iterdir()) == []
    outside.rmdir()


def test_range_of_a_large_file_reads_little(sandbox: Sandbox, folder: Path) -> None:
    import psutil

    file = folder / "large"
    with file.open("wb") as stream:
        for _ in range(8):
            stream.write(b"x" * 79 + b"\n" + b"line\n" * (2**20))
        stream.truncate(2**30)
    process = psutil.Process(sandbox.process.pid)
    before = process.memory_info().rss
    start = time.monotonic()
    part = call(sandbox, "read", file=str(file), start_line=5_000_000, end_line=5_000_002)
    assert part["content"] == "line\nline"
    assert time.monotonic() - start < 5
    assert process.memory_info().rss - before < 64 * 2**20
    refused(sandbox, "read", 413, "too_large", file=str(file))
    assert refused(sandbox, "read", 413, "too_large", file=str(file), start_line=0)["data"]["operation"] == "read"


def test_limits_of_size(small: Sandbox) -> None:
    file = small.workspace / "big"
    file.write_text("x\n" * 2000)
    message = refused(small, "read", 413, "too_large", file=str(file))["message"]
    assert "2048" in message
    assert "SANDBOX_READ_BYTES" in message
    refused(small, "read", 413, "too_large", file=str(file), encoding="base64")
    refused(small, "read", 413, "too_large", file=str(file), start_line=0, end_line=1500)
    refused(small, "read", 413, "too_large", file=str(file), start_byte=0, end_byte=3000)
    refused(small, "replace", 413, "too_large", file=str(file), old_str="x", new_str="y")
    assert call(small, "read", file=str(file), start_line=1999)["content"] == "x"

    message = refused(small, "write", 413, "too_large", file=str(file), content="x" * 10_000)["message"]
    assert "SANDBOX_BODY_BYTES" in message
    # Also when the size is not announced.
    body = json.dumps({"file": str(file), "content": "x" * 20_000}).encode()
    parts = (body[place : place + 1000] for place in range(0, len(body), 1000))
    answer = small.client.post("/v1/file/write", content=parts, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert file.stat().st_size == 4000


# Writing


def test_write_keeps_mode_and_is_atomic(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a" / "b" / "script.sh"
    written = call(sandbox, "write", file=str(file), content="one")
    assert (written["created"], written["bytes_written"], written["size"]) == (True, 3, 3)
    file.chmod(0o750)
    before = file.stat().st_ino
    with file.open() as reader:
        assert not call(sandbox, "write", file=str(file), content="two, longer")["created"]
        assert reader.read() == "one", "who has it open sees the old content whole"
    assert stat.S_IMODE(file.stat().st_mode) == 0o750
    assert file.stat().st_ino != before
    assert [entry.name for entry in file.parent.iterdir()] == ["script.sh"]


def test_write_forms(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.txt"
    call(sandbox, "write", file=str(file), content="1", leading_newline=True, trailing_newline=True)
    assert file.read_text() == "\n1\n"
    inode = file.stat().st_ino
    appended = call(sandbox, "write", file=str(file), content="2", append=True)
    assert (file.read_text(), appended["bytes_written"], appended["size"]) == ("\n1\n2", 1, 4)
    assert file.stat().st_ino == inode
    call(sandbox, "write", file=str(folder / "new"), content="x", append=True)
    assert (folder / "new").read_text() == "x"
    content = bytes(range(256))
    call(sandbox, "write", file=str(file), content=base64.b64encode(content).decode(), encoding="base64")
    assert file.read_bytes() == content
    call(sandbox, "write", file=str(file), content="raw", encoding="raw", trailing_newline=True)
    assert file.read_text() == "raw"
    call(sandbox, "write", file=str(file), content="", encoding=None, append=None)
    assert file.read_bytes() == b""


def test_write_errors(sandbox: Sandbox, folder: Path) -> None:
    file = str(folder / "a.txt")
    refused(sandbox, "write", 422, "invalid_request", file=file, content="%%%", encoding="base64")
    refused(sandbox, "write", 409, "not_a_file", file=str(folder), content="x")
    refused(sandbox, "write", 409, "not_a_file", file=str(sandbox.workspace), content="x")
    refused(sandbox, "write", 404, "file_not_found", file=f"{folder}/no/a", content="x", create_parents=False)
    refused(sandbox, "write", 501, "not_implemented", file=file, content="x", sudo=True)
    call(sandbox, "write", file=file, content="x")
    refused(sandbox, "write", 409, "file_exists", file=file, content="y", overwrite=False)
    refused(sandbox, "write", 409, "file_exists", {"if-none-match": "*"}, file=file, content="y")
    refused(sandbox, "write", 409, "not_a_directory", file=f"{file}/below", content="y")
    body = f'{{"file": "{file}", "content": "\\ud800"}}'
    answer = sandbox.client.post("/v1/file/write", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert Path(file).read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_permissions(sandbox: Sandbox, folder: Path) -> None:
    (folder / "closed").write_text("x")
    (folder / "closed").chmod(0)
    refused(sandbox, "read", 403, "permission_denied", file=str(folder / "closed"))
    refused(sandbox, "write", 403, "permission_denied", file=str(folder / "closed"), content="y")


def test_immovable_things_are_denied(sandbox: Sandbox, folder: Path) -> None:
    """What even root may not do."""
    with running(sandbox.root.parent / f"proc-{os.getpid()}", file_roots="/proc,/dev") as other:
        refused(other, "write", 500, "io_error", file="/proc/version", content="x", append=True)
        refused(other, "mkdir", 404, "file_not_found", path="/proc/self/new")
        refused(other, "write", 404, "file_not_found", file="/proc/none", content="x")
        refused(other, "read", 409, "not_a_file", file="/dev/zero")
        assert "Linux" in call(other, "read", file="/proc/version")["content"], "files whose size is told as 0"
        refused(other, "delete", 403, "permission_denied", path="/proc", recursive=True)


def test_preconditions(sandbox: Sandbox, folder: Path) -> None:
    file = str(folder / "a.txt")
    first = call(sandbox, "write", file=file, content="1")
    assert call(sandbox, "read", file=file)["etag"] == call(sandbox, "stat", path=file)["etag"] == first["etag"]
    second = call(sandbox, "write", file=file, content="2", if_etag=first["etag"])
    stale = {"if_etag": first["etag"]}
    data = refused(sandbox, "write", 412, "file_changed", file=file, content="3", **stale)["data"]
    assert data["etag"] == second["etag"]
    refused(sandbox, "write", 412, "file_changed", {"If-Match": first["etag"]}, file=file, content="3")
    refused(sandbox, "replace", 412, "file_changed", file=file, old_str="2", new_str="3", **stale)
    refused(sandbox, "delete", 412, "file_changed", path=file, **stale)
    refused(sandbox, "write", 412, "file_changed", file=file, content="3", if_mtime=second["mtime"] - 1)
    refused(sandbox, "write", 412, "file_changed", file=f"{folder}/none", content="3", if_etag="*")
    old = {"If-Unmodified-Since": "Wed, 21 Oct 2015 07:28:00 GMT"}
    refused(sandbox, "write", 412, "file_changed", old, file=file, content="3")
    refused(sandbox, "write", 422, "invalid_request", {"If-Unmodified-Since": "x"}, file=file, content="3")
    for upload in (
        sandbox.client.put("/v1/file/content", params={"path": file}, content=b"3", headers={"If-Match": '"x"'}),
        sandbox.client.post("/v1/file/upload", data={"path": file}, files={"file": b"3"}, headers={"If-Match": '"x"'}),
    ):
        assert (upload.status_code, upload.json()["error"]["code"]) == (412, "file_changed")
    assert Path(file).read_text() == "2"
    call(sandbox, "write", file=file, content="3", if_mtime=second["mtime"], if_etag=second["etag"].strip('"'))
    third = call(sandbox, "replace", file=file, old_str="3", new_str="4", headers={"If-Match": "*"})
    call(sandbox, "delete", path=file, if_etag=third["etag"])


def test_replace(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\none\r\n")
    assert call(sandbox, "replace", file=str(file), old_str="one\n", new_str="1\n")["replaced_count"] == 2
    assert file.read_bytes() == b"\xef\xbb\xbf1\r\ntwo\r\n1\r\n", "byte order mark and line ends stay"
    answer = sandbox.client.post("/v1/file/replace", json={"file": str(file), "old_str": "no", "new_str": ""}).json()
    assert answer["data"]["replaced_count"] == 0
    assert answer["hint"]
    refused(sandbox, "replace", 422, "invalid_request", file=str(file), old_str="", new_str="x")


def test_concurrent_changes_are_not_lost(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "count"
    file.write_text("".join(f"<{number}>" for number in range(24)))
    threads = [
        threading.Thread(
            target=call, args=(sandbox, "replace"), kwargs={"file": str(file), "old_str": f"<{n}>", "new_str": "+"}
        )
        for n in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text() == "+" * 24


# Folders


def test_list(sandbox: Sandbox, folder: Path) -> None:
    (folder / "b").mkdir()
    (folder / "b" / "deep").mkdir()
    (folder / "b" / "deep" / "x.py").write_text("123")
    (folder / "a.txt").write_text("1")
    (folder / ".hidden").touch()

    def names(**options: Any) -> list[str]:
        return [
            row["path"][len(str(folder)) + 1 :] for row in call(sandbox, "list", path=str(folder), **options)["files"]
        ]

    assert names() == [".hidden", "a.txt", "b"]
    assert names(show_hidden=False, sort_desc=True) == ["b", "a.txt"]
    assert names(recursive=True, show_hidden=False) == ["a.txt", "b", "b/deep", "b/deep/x.py"]
    assert names(recursive=True, max_depth=2) == [".hidden", "a.txt", "b", "b/deep"]
    assert names(recursive=True, file_types=["py"]) == ["b/deep/x.py"]
    assert names(sort_by="type") == ["b", ".hidden", "a.txt"]
    listed = call(sandbox, "list", path=str(folder), max_results=1, include_permissions=True)
    assert (listed["total_count"], listed["directory_count"], listed["file_count"]) == (3, 1, 2)
    assert listed["truncated"]
    assert len(listed["files"]) == 1
    assert listed["files"][0]["permissions"].startswith("rw-")
    refused(sandbox, "list", 409, "not_a_directory", path=str(folder / "a.txt"))
    refused(sandbox, "list", 404, "file_not_found", path=str(folder / "none"))
    refused(sandbox, "list", 422, "invalid_request", path=str(folder), sort_by="colour")


def test_names_that_are_no_text(sandbox: Sandbox, folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.txt")).write_text("x")
    assert call(sandbox, "list", path=str(folder))["total_count"] == 1
    assert call(sandbox, "glob", path=str(folder), pattern="*")["total_count"] == 1
    assert call(sandbox, "find", path=str(folder), glob="*")["files"]
    assert call(sandbox, "grep", path=str(folder), pattern="x")["match_count"] == 1
    assert "b" in call(sandbox, "str_replace_editor", command="view", path=str(folder))["output"]


def test_glob_and_find(sandbox: Sandbox, folder: Path) -> None:
    for name in ("a.py", "src/b.py", "src/c.ts", "src/deep/d.tsx", "node_modules/x.py", ".git/y.py", "src/[z].py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)

    def found(pattern: str, **options: Any) -> list[str]:
        rows = call(sandbox, "glob", path=str(folder), pattern=pattern, **options)["files"]
        return [row["path"][len(str(folder)) + 1 :] for row in rows]

    assert found("*.py") == ["a.py"]
    assert found("**/*.py", exclude=["node_modules"]) == ["a.py", "src/[z].py", "src/b.py"]
    assert found("src/**/*.{ts,tsx}") == ["src/c.ts", "src/deep/d.tsx"]
    assert found("**/y.py") == []
    assert found("**/y.py", include_hidden=True) == [".git/y.py"]
    assert found(".git/*") == [".git/y.py"]
    assert found("src/[[]z].py") == ["src/[z].py"]
    assert found("src/*", files_only=False, sort_desc=True)[0] == "src/deep"
    sized = call(sandbox, "glob", path=str(folder), pattern="**", sort_by="size", max_results=1)
    assert (sized["files"][0]["name"], sized["truncated"], sized["total_count"]) == ("a.py", True, 6)
    start = time.monotonic()
    (folder / ("a" * 200)).touch()
    assert found("*a" * 60 + "b") == []
    assert time.monotonic() - start < 2, "patterns take linear time"
    assert len(call(sandbox, "find", path=str(folder), glob="*.py")["files"]) == 4
    assert call(sandbox, "find", path=str(folder), glob="deep")["files"] == [str(folder / "src" / "deep")]
    refused(sandbox, "glob", 422, "invalid_request", path=str(folder), pattern="{a,b}" * 10)


# Searching


@pytest.fixture(params=["ripgrep", "python"])
def engine(request: pytest.FixtureRequest, sandbox: Sandbox, small: Sandbox) -> Sandbox:
    return sandbox if request.param == "ripgrep" else small


def test_grep(engine: Sandbox, request: pytest.FixtureRequest) -> None:
    folder = engine.workspace / "grep"
    for name, content in {
        "a.txt": "one\ntwo two\nthree\nfour\n",
        "b/c.py": "# Two\nx = 2\n",
        "b/skip.min.js": "two",
        ".hidden": "two",
        "binary": "two\0",
        "latin": "zw\udcf6lf two\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))

    def grep(pattern: str, **options: Any) -> dict[str, Any]:
        result = call(engine, "grep", path=str(folder), pattern=pattern, **options)
        result["names"] = [f"{row['file'][len(str(folder)) + 1 :]}:{row['line_number']}" for row in result["matches"]]
        return result

    found = grep("t[w]o", exclude=["*.min.js"])
    assert sorted(found["names"]) == ["a.txt:2", "latin:1"]
    assert (found["match_count"], found["files_matched"], found["truncated"]) == (2, 2, False)
    assert "b/c.py:1" in grep("two", case_insensitive=True)["names"]
    assert grep("two", include=["*.txt"])["names"] == ["a.txt:2"]
    assert ".hidden:1" in grep("two", include_hidden=True)["names"]
    assert grep("two", recursive=False, include=["*.js"])["names"] == []
    assert grep("Two", type="py")["names"] == ["b/c.py:1"]
    assert grep("t.o", fixed_strings=True)["names"] == []
    around = grep("three", context_before=2, context_after=3)["matches"][0]
    assert (around["context_before"], around["context_after"]) == (["one", "two two"], ["four"])
    assert grep(r"two\nthree", multiline=True)["names"] == ["a.txt:2"]
    assert grep(r"(?<=one\n)t|(?<=th)ree")["names"] == ["a.txt:3"], "lookbehind"
    assert grep(r"(?P<first>t)hr(?=e)|(?P<again>w)o (?:t(?P=again)o)")["names"] == ["a.txt:2", "a.txt:3"]
    slow = folder.parent / "slow"
    slow.mkdir()
    (slow / "long").write_text("a" * 1000 + "\n")
    result = call(engine, "grep", path=str(slow), pattern="(a|aa)+$(?<!a)")
    assert (result["timed_out"], result["matches"]) == (True, [])
    paged = grep("o", max_results=1, offset=1, include=["a.txt"])
    assert (paged["names"], paged["truncated"]) == (["a.txt:2"], True)
    assert grep("two", max_file_size="10", exclude=["latin"])["names"] == ["b/skip.min.js:1"]
    assert call(engine, "grep", path=str(folder / "a.txt"), pattern="four")["matches"][0]["line_number"] == 4
    refused(engine, "grep", 422, "invalid_request", path=str(folder), pattern="(")
    refused(engine, "grep", 404, "file_not_found", path=str(folder / "none"), pattern="x")
    assert grep("--pre=sh")["names"] == []


def test_endless_expressions_are_ended(small: Sandbox) -> None:
    file = small.workspace / "evil"
    file.write_text("found\n" + "a" * 1000 + "\n")
    start = time.monotonic()
    result = call(small, "search", file=str(file), regex="(a|aa)+$(?<!a)|found")
    assert (result["timed_out"], result["truncated"], result["matches"]) == (True, True, ["found"])
    assert call(small, "grep", path=str(file), pattern="(a|aa)+$(?<!a)")["timed_out"]
    assert time.monotonic() - start < 8


def test_endless_expressions_harm_nobody(small: Sandbox) -> None:
    (small.workspace / "evil2").write_text("a" * 1000)
    body = {"file": str(small.workspace / "evil2"), "regex": "(a|aa)+$(?<!a)"}
    thread = threading.Thread(target=small.client.post, args=("/v1/file/search",), kwargs={"json": body})
    thread.start()
    time.sleep(0.2)
    start = time.monotonic()
    call(small, "stat", path=str(small.workspace))
    assert time.monotonic() - start < 0.3
    thread.join()


def test_search(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.txt"
    file.write_text("one\ntwo\nthree\n" + "x" * 10_000)
    found = call(sandbox, "search", file=str(file), regex="^t")
    assert (found["matches"], found["line_numbers"]) == (["two", "three"], [1, 2])
    assert call(sandbox, "search", file=str(file), regex=".", max_results=2)["truncated"]
    assert len(call(sandbox, "search", file=str(file), regex="xxx")["matches"][0]) < 5000
    refused(sandbox, "search", 422, "invalid_request", file=str(file), regex="(")
    refused(sandbox, "search", 404, "file_not_found", file=str(folder / "none"), regex="x")
    refused(sandbox, "search", 409, "not_a_file", file=str(folder), regex="x")


# The editor


def edit(sandbox: Sandbox, command: str, path: Path, **options: Any) -> dict[str, Any]:
    return call(sandbox, "str_replace_editor", command=command, path=str(path), **options)


def test_editor(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.py"
    created = edit(sandbox, "create", file, file_text="one\ntwo\nthree\n")
    assert (created["prev_exist"], created["new_content"]) == (False, "one\ntwo\nthree\n")
    assert edit(sandbox, "view", file)["output"] == "     1\tone\n     2\ttwo\n     3\tthree"
    assert edit(sandbox, "view", file, view_range=[2, -1])["output"] == "     2\ttwo\n     3\tthree"
    replaced = edit(sandbox, "str_replace", file, old_str="two", new_str="2")
    assert (replaced["old_content"], replaced["new_content"]) == ("one\ntwo\nthree\n", "one\n2\nthree\n")
    assert "     2\t2" in replaced["output"]
    edit(sandbox, "insert", file, insert_line=0, new_str="zero")
    edit(sandbox, "insert", file, insert_line=4, new_str="four\n")
    assert file.read_text() == "zero\none\n2\nthree\nfour\n"
    for expected in ("zero\none\n2\nthree\n", "one\n2\nthree\n", "one\ntwo\nthree\n"):
        edit(sandbox, "undo_edit", file)
        assert file.read_text() == expected
    edit(sandbox, "undo_edit", file)
    assert not file.exists(), "undoing a creation removes the file"
    what = {"command": "undo_edit", "path": str(file)}
    refused(sandbox, "str_replace_editor", 409, "conflict", **what)


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        # One line that ends otherwise, far from the edit, within it, and at its edge.
        (b"x\na\r\nb\r\n", "a\nb\n", "A\nB\n", b"x\nA\r\nB\r\n"),
        (b"a\r\nb\nc\r\nd\r\n", "a\nb\nc\n", "a\nB\nc\n", b"a\r\nB\nc\r\nd\r\n"),
        (b"a\r\nb\nc\r\n", "b\nc", "1\n2\n3", b"a\r\n1\n2\n3\r\n"),
        (b"a\r\nb\r\nc\n", "b", "1\n2", b"a\r\n1\r\n2\r\nc\n"),
        (b"a\r\nb\r\nc\n", "a\r\nb\r\n", "a\r\nB\r\n", b"a\r\nB\r\nc\n"),
        (b"a\nb\r\nlast", "last", "one\ntwo", b"a\nb\r\none\r\ntwo"),
        (b"\xef\xbb\xbfa\r\nb\n", "a\n", "A\n", b"\xef\xbb\xbfA\r\nb\n"),
        # A caller that writes them means them; a file without them is taken as it is.
        (b"a\r\nb\n", "b\n", "b\r\n", b"a\r\nb\r\n"),
        (b"a\nb\n", "a\n", "a\r\n", b"a\r\nb\n"),
        (b"a\r\nb\rc\r\n", "b\rc\n", "d\n", b"a\r\nd\r\n"),
    ],
)
def test_edits_leave_the_other_line_ends_alone(
    sandbox: Sandbox, tmp_path: Path, before: bytes, old: str, new: str, after: bytes
) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(before)
    edit(sandbox, "str_replace", file, old_str=old, new_str=new)
    assert file.read_bytes() == after
    edit(sandbox, "undo_edit", file)
    assert file.read_bytes() == before
    assert call(sandbox, "replace", file=str(file), old_str=old, new_str=new)["replaced_count"] == 1
    assert file.read_bytes() == after


def test_inserted_lines_end_like_their_neighbours(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.txt"
    file.write_bytes(b"a\nb\r\nc")
    edit(sandbox, "insert", file, insert_line=1, new_str="1\n")
    assert file.read_bytes() == b"a\n1\r\nb\r\nc"
    edit(sandbox, "insert", file, insert_line=4, new_str="2")
    assert file.read_bytes() == b"a\n1\r\nb\r\nc\r\n2"
    file.write_bytes(b"x\nx\r\nx\n")
    assert call(sandbox, "replace", file=str(file), old_str="x\n", new_str="y\n")["replaced_count"] == 3
    assert file.read_bytes() == b"y\ny\r\ny\n"


def test_editor_modes_and_errors(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.txt"
    file.write_bytes(b"x\r\nx\r\nx\r\n")

    def refuse(status: int, code: str, **body: Any) -> dict[str, Any]:
        return refused(sandbox, "str_replace_editor", status, code, **{"path": str(file), **body})

    said = refuse(409, "text_not_unique", command="str_replace", old_str="x", new_str="y")
    assert "1, 2, 3" in said["message"]
    refuse(404, "text_not_found", command="str_replace", old_str="z", new_str="y")
    refuse(422, "invalid_request", command="str_replace", new_str="y")
    refuse(422, "invalid_request", command="insert", new_str="y")
    refuse(422, "invalid_request", command="insert", new_str="y", insert_line=9)
    refuse(422, "invalid_request", command="create")
    refuse(409, "file_exists", command="create", file_text="y")
    refuse(422, "invalid_request", command="view", view_range=[3, 2])
    refuse(422, "invalid_request", command="view", view_range=[30, 40])
    refuse(422, "invalid_request", command="view", path=str(folder), view_range=[1, 2])
    refuse(404, "file_not_found", command="view", path=str(folder / "none"))
    edit(sandbox, "str_replace", file, old_str="x", new_str="first", replace_mode="FIRST")
    edit(sandbox, "str_replace", file, old_str="x", new_str="last", replace_mode="LAST")
    assert file.read_bytes() == b"first\r\nx\r\nlast\r\n"
    edit(sandbox, "str_replace", file, old_str="t\n", replace_mode="ALL")
    assert file.read_bytes() == b"firsx\r\nlas"
    file.write_text("somebody else's")
    refuse(412, "file_changed", command="undo_edit")
    assert file.read_text() == "somebody else's"
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.txt").touch()
    assert f"{folder}/sub/deep.txt" in edit(sandbox, "view", folder)["output"]
    assert edit(sandbox, "view", file, enable_metadata=True)["metadata"]["size"] == 15


# Metadata and places


def test_stat(sandbox: Sandbox, folder: Path) -> None:
    file = folder / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 320, 200) + b"\0" * 20)
    file.chmod(0o640)
    found = call(sandbox, "stat", path=str(file))
    assert (found["type"], found["size"], found["mode"], found["permissions"]) == ("file", 44, "0640", "rw-r-----")
    assert (found["mime"], found["width"], found["height"]) == ("image/png", 320, 200)
    assert (found["uid"], found["mtime"]) == (os.getuid(), file.stat().st_mtime)
    assert call(sandbox, "stat", path=str(sandbox.workspace))["type"] == "directory"
    refused(sandbox, "stat", 404, "file_not_found", path=str(folder / "none"))


def test_places(sandbox: Sandbox, folder: Path) -> None:
    def path(name: str) -> str:
        return str(folder / name)

    assert call(sandbox, "mkdir", path=path("a/b"))["created"]
    assert not call(sandbox, "mkdir", path=path("a/b"))["created"]
    refused(sandbox, "mkdir", 409, "file_exists", path=path("a/b"), exist_ok=False)
    refused(sandbox, "mkdir", 404, "file_not_found", path=path("x/y"), parents=False)
    (folder / "a" / "f").write_text("f")
    (folder / "a" / "f").chmod(0o755)
    refused(sandbox, "mkdir", 409, "file_exists", path=path("a/f"))
    call(sandbox, "copy", source=path("a"), destination=path("c"))
    assert (folder / "c" / "f").read_text() == "f"
    call(sandbox, "copy", source=path("a/f"), destination=path("new/g"))
    assert stat.S_IMODE((folder / "new" / "g").stat().st_mode) == 0o755
    refused(sandbox, "copy", 409, "file_exists", source=path("a/f"), destination=path("new/g"))
    (folder / "a" / "f").write_text("newer")
    call(sandbox, "copy", source=path("a/f"), destination=path("new/g"), overwrite=True)
    assert (folder / "new" / "g").read_text() == "newer"
    refused(sandbox, "copy", 409, "not_a_file", source=path("a/f"), destination=path("c"), overwrite=True)
    refused(sandbox, "copy", 422, "invalid_request", source=path("a"), destination=path("a/b/c"))
    call(sandbox, "move", source=path("new/g"), destination=path("h"))
    assert not (folder / "new" / "g").exists()
    refused(sandbox, "move", 404, "file_not_found", source=path("none"), destination=path("i"))
    refused(sandbox, "move", 409, "file_exists", source=path("h"), destination=path("c/f"))
    refused(sandbox, "move", 403, "path_outside", source=path("h"), destination="/etc/h")
    refused(sandbox, "move", 403, "permission_denied", source=str(sandbox.workspace), destination=path("w"))
    refused(sandbox, "delete", 409, "conflict", path=path("a"))
    call(sandbox, "delete", path=path("a"), recursive=True)
    call(sandbox, "delete", path=path("new"))
    refused(sandbox, "delete", 404, "file_not_found", path=path("a"))
    for root in (sandbox.workspace, sandbox.root):
        refused(sandbox, "delete", 403, "permission_denied", path=str(root), recursive=True)
    assert sandbox.workspace.is_dir()


def test_full_disk(sandbox: Sandbox, tmp_path: Path) -> None:
    small = tmp_path / "full"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (small / "kept").write_text("kept")
        refused(sandbox, "write", 507, "quota_exceeded", file=str(small / "kept"), content="x" * 100_000)
        refused(sandbox, "write", 507, "quota_exceeded", file=str(small / "kept"), content="x" * 100_000, append=True)
        answer = sandbox.client.put("/v1/file/content", params={"path": str(small / "up")}, content=b"x" * 3_000_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "quota_exceeded")
        assert (small / "kept").read_text() == "kept"
        assert [entry.name for entry in small.iterdir()] == ["kept"]
        # To another file system and back.
        source = sandbox.workspace / "crossing"
        source.write_text("crossing")
        call(sandbox, "move", source=str(source), destination=str(small / "crossed"))
        assert (small / "crossed").read_text() == "crossing"
    finally:
        subprocess.run(["umount", small], check=True)


# The peer's client


def test_peer_client(sandbox: Sandbox, folder: Path) -> None:
    client = Peer(base_url=sandbox.url).file
    file = str(folder / "peer.txt")
    written = client.write_file(file=file, content="alpha\nbeta\n", trailing_newline=True)
    assert written.success
    assert written.data
    assert written.data.bytes_written == 12
    read = client.read_file(file=file, start_line=0, end_line=1)
    assert read.data
    assert read.data.content == "alpha"
    found = client.search_in_file(file=file, regex="b.t")
    assert found.data
    assert found.data.line_numbers == [1]
    replaced = client.replace_in_file(file=file, old_str="beta", new_str="gamma")
    assert replaced.data
    assert replaced.data.replaced_count == 1
    assert client.list_path(path=str(folder)).data.total_count == 1
    assert client.find_files(path=str(folder), glob="*.txt").data.files == [file]
    grepped = client.grep_files(path=str(folder), pattern="gamma", context_before=1)
    assert grepped.data
    assert grepped.data.matches
    assert grepped.data.matches[0].context_before == ["alpha"]
    assert client.glob_files(path=str(folder), pattern="**/*").data.total_count == 1
    edited = client.str_replace_editor(command="str_replace", path=file, old_str="gamma", new_str="delta")
    assert edited.data
    assert edited.data.new_content == "alpha\ndelta\n\n"
    for failed in (
        client.read_file(file=f"{file}.none"),
        client.list_path(path=f"{file}.none"),
        client.grep_files(path=f"{file}.none", pattern="x"),
        client.glob_files(path=f"{file}.none", pattern="x"),
        client.str_replace_editor(command="view", path=f"{file}.none"),
        client.replace_in_file(file=f"{file}.none", old_str="a", new_str="b"),
    ):
        assert failed.success is False
        assert failed.data.error_type == "file_not_found"
        assert failed.data.errno == 2


def test_health(sandbox: Sandbox) -> None:
    import asyncio

    from sandbox_api.file.service import FileService
    from sandbox_api.paths import Confinement
    from sandbox_api.settings import Settings

    settings = Settings(root=sandbox.root)
    health = asyncio.run(FileService(settings, Confinement(settings)).health())
    assert health.status == "ready"
    assert "GiB free" in health.detail


def test_a_picture_that_is_cut_off_has_no_size(sandbox: Sandbox, folder: Path) -> None:
    for content in (b"GIF89a", b"GIF89a\1", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0"):
        (folder / "cut").write_bytes(content)
        answer = sandbox.client.post("/v1/file/read", json={"file": str(folder / "cut"), "encoding": "base64"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"].get("width") is None


@pytest.mark.parametrize("seconds", [-(2**40), 2**40, 2**55])
def test_a_file_s_time_can_lie_beyond_every_calendar(seconds: int) -> None:
    """Memory's file system keeps any; others cut it."""
    assert tree.iso(seconds)[:4] in ("0001", "9999")
    assert conditions.http_date(os.stat_result((0o100644, 1, 1, 1, 0, 0, 5, seconds, seconds, seconds)))
