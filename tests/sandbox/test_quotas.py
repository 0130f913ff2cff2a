"""A quota that is reached is told in words, with its name; nothing else breaks, and what is freed can be used again."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.sandbox import Sandbox, running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users and file systems need root")
MIB = 2**20
USER = 61_000
"""Another user than root, whom the kernel lets start any number of processes."""
AS_USER = [
    "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
    "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override",
]  # fmt: skip
"""It reads what lies in root's home: Python itself."""
DISK = 24 * MIB


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A server of a plain user, whose workspace is a small disk."""
    root = tmp_path_factory.mktemp("limited")
    disk = root / "disk"
    disk.mkdir()
    with ExitStack() as stack:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
        stack.callback(lambda: subprocess.run(["umount", "--lazy", disk], check=True))
        for folder in (root, disk):
            os.chown(folder, USER, USER)
        yield stack.enter_context(running(root, before=AS_USER, workspace=str(disk)))


@contextlib.contextmanager
def limit(sandbox: Sandbox, kind: str, most: int) -> Iterator[None]:
    """The server, and what it starts, under a limit of the kernel; `kind` as in prlimit(1)."""
    change = [*AS_USER, "prlimit", f"--pid={sandbox.process.pid}"]
    asked = [*change, f"--{kind}", "--raw", "--noheadings", "--output=SOFT"]
    before = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run([*change, f"--{kind}={most}:"], check=True)
    try:
        yield
    finally:
        subprocess.run([*change, f"--{kind}={before}:"], check=True)


def quota(answer: httpx.Response) -> str:
    """The quota that an answer names, which must be an error in the one form."""
    told = answer.json()
    assert answer.status_code == 507 and told["error"]["code"] == "quota_exceeded", answer.text
    assert told["error"]["hint"] and "Traceback" not in answer.text
    name: str = told["data"]["quota"]
    return name


def works(sandbox: Sandbox) -> None:
    answer = sandbox.client.post("/v1/shell/exec", json={"command": "echo works"})
    assert answer.json()["data"]["output"].strip() == "works", answer.text


Ask = Callable[[httpx.Client, Path], httpx.Response]

WRITES: dict[str, Ask] = {
    "write": lambda client, disk: client.post("/v1/file/write", json={"file": f"{disk}/a", "content": "x" * DISK}),
    "append": lambda client, disk: client.post(
        "/v1/file/write", json={"file": f"{disk}/kept", "content": "x" * DISK, "append": True}
    ),
    "upload": lambda client, disk: client.put("/v1/file/content", params={"path": f"{disk}/a"}, content=b"x" * DISK),
    "form": lambda client, disk: client.post("/v1/file/upload", files={"file": ("a", b"x" * DISK)}),
    "copy": lambda client, disk: client.post(
        "/v1/file/copy", json={"source": f"{disk}/half", "destination": f"{disk}/b"}
    ),
    "copy of a folder": lambda client, disk: client.post(
        "/v1/file/copy", json={"source": f"{disk}/folder", "destination": f"{disk}/b"}
    ),
}


@pytest.mark.parametrize("ask", WRITES.values(), ids=WRITES)
def test_writes_leave_a_reserve_on_the_disk(limited: Sandbox, ask: Ask) -> None:
    disk = Path(limited.variables["SANDBOX_WORKSPACE"])
    (disk / "folder").mkdir(exist_ok=True)
    (disk / "kept").write_text("kept")
    for large in (disk / "half", disk / "folder" / "half"):
        with large.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, DISK * 9 // 20 - MIB)
    answer = ask(limited.client, disk)
    assert quota(answer) == "disk" and "MiB free, of which 1.2 MiB are kept" in answer.json()["message"]
    assert {entry.name for entry in disk.iterdir()} == {"folder", "half", "kept"}
    assert (disk / "kept").read_text() == "kept"
    (disk / "half").unlink()
    saved = limited.client.post("/v1/file/write", json={"file": f"{disk}/a", "content": "x" * MIB})
    assert saved.status_code == 200, saved.text
    (disk / "a").unlink()


def test_the_state_says_that_the_reserve_is_reached(limited: Sandbox) -> None:
    disk = Path(limited.variables["SANDBOX_WORKSPACE"])
    with (disk / "large").open("wb") as file:
        free = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 64 * 1024)
    try:
        told = limited.client.get("/v1/sandbox").json()["data"]
        assert "SANDBOX_DISK_RESERVE_BYTES" in str(told["capabilities"]["file"]["detail"])
        works(limited)
    finally:
        (disk / "large").unlink()


STARTS: dict[str, Ask] = {
    "command": lambda client, disk: client.post("/v1/shell/exec", json={"command": "echo one", "async_mode": False}),
    "bash": lambda client, disk: client.post("/v1/bash/exec", json={"command": "echo one"}),
    "terminal": lambda client, disk: client.post("/terminal-server/api/terminals", json={}),
    "javascript": lambda client, disk: client.post("/v1/code/execute", json={"language": "javascript", "code": "1"}),
    "conversion": lambda client, disk: client.post("/v1/util/convert_to_markdown", json={"uri": "data:text/html,<p>x"}),
}


def run_out(ask: Ask, sandbox: Sandbox, times: int = 20) -> httpx.Response:
    """The first refusal: what was started ahead serves a few more."""
    disk = Path(sandbox.variables["SANDBOX_WORKSPACE"])
    answers = [ask(sandbox.client, disk) for _ in range(times)]
    return next((answer for answer in answers if answer.status_code != 200), answers[-1])


@pytest.mark.parametrize("ask", STARTS.values(), ids=STARTS)
def test_no_further_process(limited: Sandbox, ask: Ask) -> None:
    works(limited)
    with limit(limited, "nproc", 1):
        assert quota(run_out(ask, limited)) == "processes"
    works(limited)


def test_a_tool_is_told_as_well(limited: Sandbox) -> None:
    call: Ask = lambda client, disk: client.post(  # noqa: E731
        "/v1/mcp/sandbox/tools/run_command", json={"command": "echo one"}
    )

    def outcome() -> dict[str, Any]:
        for _ in range(20):
            told: dict[str, Any] = call(limited.client, Path()).json()["data"]
            if told["isError"]:
                break
        return told

    with limit(limited, "nproc", 1):
        assert "quota_exceeded" in str(outcome()["content"])
    works(limited)


OPENS: dict[str, Ask] = {
    "read": lambda client, disk: client.post("/v1/file/read", json={"file": f"{disk}/kept"}),
    "write": lambda client, disk: client.post("/v1/file/write", json={"file": f"{disk}/new", "content": "x"}),
    "list": lambda client, disk: client.post("/v1/file/list", json={"path": str(disk)}),
    "search": lambda client, disk: client.post("/v1/file/grep", json={"path": str(disk), "pattern": "x"}),
    "download": lambda client, disk: client.get("/v1/file/download", params={"path": f"{disk}/kept"}),
    "watch": lambda client, disk: client.post("/v1/file/watch", json={"path": str(disk)}),
    "skill": lambda client, disk: client.post(
        "/v1/skills/register", files={"file": ("SKILL.md", b"---\nname: a\n---\n")}
    ),
    **STARTS,
}


@pytest.mark.parametrize("ask", OPENS.values(), ids=OPENS)
def test_no_further_file(limited: Sandbox, ask: Ask) -> None:
    (Path(limited.variables["SANDBOX_WORKSPACE"]) / "kept").write_text("kept")
    works(limited)  # its connection is open already
    numbers = {int(path.name) for path in Path(f"/proc/{limited.process.pid}/fd").iterdir()}
    assert numbers >= set(range(6))  # these are the server's for as long as it lives
    with limit(limited, "nofile", 6):
        assert quota(run_out(ask, limited)) in ("open_files", "file_watches")
    works(limited)


def test_no_memory(limited: Sandbox) -> None:
    large = limited.root / "large"
    large.write_bytes(b"x" * 30 * MIB)
    size = int(Path(f"/proc/{limited.process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    with limit(limited, "as", size + 8 * MIB):
        assert quota(limited.client.post("/v1/file/read", json={"file": str(large)})) == "memory"
    works(limited)


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A server that may watch few folders."""
    script = 'echo 4 >/proc/sys/user/max_inotify_watches; echo 3 >/proc/sys/user/max_inotify_instances; exec "$@"'
    before = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    with running(tmp_path_factory.mktemp("watching"), before=before) as started:
        yield started


def watch(sandbox: Sandbox, path: Path) -> httpx.Response:
    return sandbox.client.post("/v1/file/watch", json={"path": str(path), "recursive": True})


def test_a_tree_with_too_many_folders_is_not_watched_in_part(watching: Sandbox) -> None:
    for number in range(8):
        (watching.workspace / "tree" / str(number)).mkdir(parents=True)
    answer = watch(watching, watching.workspace / "tree")
    assert quota(answer) == "file_watches" and "max_user_watches" in answer.json()["message"]
    assert watch(watching, watching.workspace / "tree" / "1").status_code == 200


def test_too_many_watchers(watching: Sandbox) -> None:
    folder = watching.workspace / "one"
    folder.mkdir()
    answers = [watch(watching, folder) for _ in range(4)]
    assert quota(answers[-1]) == "file_watches" and "max_user_instances" in answers[-1].json()["message"]
    for watcher in watching.client.get("/v1/file/watch").json()["data"]["watchers"]:
        watching.client.delete(f"/v1/file/watch/{watcher['watcher_id']}")
