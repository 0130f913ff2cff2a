"""Code in both languages: /v1/code, limits, floods, and that nothing stays behind."""

from __future__ import annotations

import ast
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from agent_sandbox import Sandbox as Peer

from sandbox_api.code.wire import DELIMITER, Codec, Message
from sandbox_api.unicode import MOST_DEPTH, loads
from tests.support.sandbox import Sandbox, running

FLOOD = 'while True: print("x" * 1000)'


def run(sandbox: Sandbox, language: str, code: str, **more: Any) -> dict[str, Any]:
    answer = sandbox.client.post("/v1/code/execute", json={"language": language, "code": code, **more})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def refused(sandbox: Sandbox, path: str = "/v1/code/execute", **body: Any) -> tuple[int, str]:
    answer = sandbox.client.post(path, json=body)
    return answer.status_code, answer.json()["error"]["code"]


def children(sandbox: Sandbox) -> list[psutil.Process]:
    return psutil.Process(sandbox.process.pid).children(recursive=True)


def eventually(check: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def test_python_returns_the_value_of_the_last_expression(sandbox: Sandbox) -> None:
    data = run(sandbox, "python", "2**10")
    assert data["status"] == "ok"
    assert data["result"] == "1024"
    assert data["outputs"][0]["output_type"] == "execute_result"
    assert data["outputs"][0]["data"]["text/plain"] == "1024"
    assert data["session_id"] is None
    assert data["exit_code"] == 0


@pytest.mark.parametrize("language", ["python", "py", "python3", "Python"])
def test_names_of_python(sandbox: Sandbox, language: str) -> None:
    data = run(sandbox, language, "print(1)", session_id="names")
    assert (data["language"], data["stdout"]) == ("python", "1\n")


@pytest.mark.parametrize("language", ["javascript", "js", "node", "nodejs"])
def test_names_of_javascript(sandbox: Sandbox, language: str) -> None:
    data = run(sandbox, language, "console.log(1)", session_id="names")
    assert (data["language"], data["stdout"]) == ("javascript", "1\n")


def test_unknown_language(sandbox: Sandbox) -> None:
    assert refused(sandbox, language="cobol", code="1") == (422, "language_unknown")


def test_alias_of_the_route(sandbox: Sandbox) -> None:
    answer = sandbox.client.post("/v1/code/exec", json={"language": "js", "code": "console.log(3)"})
    assert answer.json()["data"]["stdout"] == "3\n"


@pytest.mark.parametrize("body", [{"timeout": 0}, {"timeout": -1}, {"timeout": 1e9}, {"session_id": "../x"}])
def test_fields_are_checked(sandbox: Sandbox, body: dict[str, Any]) -> None:
    assert refused(sandbox, language="python", code="1", **body) == (422, "invalid_request")


def test_stateless_code_leaves_nothing(sandbox: Sandbox) -> None:
    run(sandbox, "python", "left = 1")
    assert run(sandbox, "python", "left")["status"] == "error"


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_stateful_code_keeps_its_state(sandbox: Sandbox, language: str) -> None:
    first = run(sandbox, language, "kept = 41", stateful=True)
    assert first["session_id"] and first["new_session"]
    second = run(sandbox, language, "kept + 1", session_id=first["session_id"])
    assert second["result"] == "42" and not second["new_session"]


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_working_directory(sandbox: Sandbox, language: str, tmp_path: Path) -> None:
    code = {"python": "import os; print(os.getcwd())", "javascript": "console.log(process.cwd())"}[language]
    assert run(sandbox, language, code)["stdout"].strip() == str(sandbox.workspace)
    assert run(sandbox, language, code, cwd=str(tmp_path))["stdout"].strip() == str(tmp_path)
    assert refused(sandbox, language=language, code=code, cwd="relative") == (422, "path_not_absolute")
    assert refused(sandbox, language=language, code=code, cwd="/nowhere") == (404, "file_not_found")
    assert refused(sandbox, language=language, code=code, cwd="/etc/passwd") == (409, "not_a_directory")


def test_the_namespace_is_the_users(sandbox: Sandbox, tmp_path: Path) -> None:
    run(sandbox, "python", "_o = 5; os = 'mine'; del get_ipython", session_id="names-of-mine")
    code = "import os as o; repr((_o, os, o.getcwd()))"
    data = run(sandbox, "python", code, session_id="names-of-mine", cwd=str(tmp_path))
    assert ast.literal_eval(ast.literal_eval(data["result"])) == (5, "mine", str(tmp_path))


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        ("raise PermissionError(13, 'not you')", (403, "permission_denied")),
        ("raise FileNotFoundError(2, 'gone')", (404, "file_not_found")),
        ("time.sleep(600)", (200, "timeout")),
    ],
)
def test_a_folder_that_python_cannot_enter(
    sandbox: Sandbox, tmp_path: Path, problem: str, outcome: tuple[int, str]
) -> None:
    """The kernel's own function is replaced: root may enter every folder, and none of the test's hangs."""
    session = {"language": "python", "session_id": f"enter-{outcome[1]}"}
    code = f"import os, time\nchdir = os.chdir\ndef refuse(path):\n    {problem}\nos.chdir = refuse"
    run(sandbox, code=code, **session)
    code = "print('ran')"
    body = {**session, "code": code, "cwd": str(tmp_path), "timeout": 1}
    answer = sandbox.client.post("/v1/code/execute", json=body)
    told = answer.json()["data"]["status"] if answer.status_code == 200 else answer.json()["error"]["code"]
    assert (answer.status_code, told) == outcome
    assert "ran" not in answer.text.replace(code, "")
    after = run(sandbox, code="os.chdir = chdir; os.getcwd()", **session)
    assert after["result"] == repr(str(sandbox.workspace)), "the session is where it was"
    assert run(sandbox, code="os.getcwd()", cwd=str(tmp_path), **session)["result"] == repr(str(tmp_path))


@pytest.mark.parametrize(
    ("language", "end", "where"),
    [("python", "import os; os._exit(1)", "import os; print(os.getcwd())"),
     ("javascript", "process.exit(1)", "console.log(process.cwd())")],
)  # fmt: skip
def test_a_session_whose_folder_was_removed(
    sandbox: Sandbox, tmp_path: Path, language: str, end: str, where: str
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    session = {"language": language, "session_id": "gone"}
    run(sandbox, code="1", cwd=str(folder), **session)
    folder.rmdir()
    assert refused(sandbox, code=end, **session) == (502, "kernel_failed")
    for _ in range(2):
        assert refused(sandbox, code=where, **session) == (404, "file_not_found")
    assert run(sandbox, code=where, cwd=str(tmp_path), **session)["stdout"] == f"{tmp_path}\n"


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_environment_has_no_settings(sandbox: Sandbox, language: str) -> None:
    code = {
        "python": "import os; print(*os.environ)",
        "javascript": "console.log(Object.keys(process.env).join(' '))",
    }[language]
    names = run(sandbox, language, code)["stdout"].split()
    assert "SANDBOX_WORKSPACE" in names
    assert "SANDBOX_PORT" not in names


@pytest.mark.parametrize(
    ("language", "code"),
    [("python", 'print("before", flush=True)\nwhile True: pass'), ("javascript", 'console.log("before"); for(;;);')],
)
@pytest.mark.parametrize("stateful", [False, True])
def test_timeout_returns_what_there_was(sandbox: Sandbox, language: str, code: str, stateful: bool) -> None:
    start = time.monotonic()
    data = run(sandbox, language, code, timeout=1, stateful=stateful)
    assert time.monotonic() - start < 4
    assert data["status"] == "timeout"
    assert data["stdout"] == "before\n"
    assert data["exit_code"] == 124
    assert "1 s" in data["note"]


@pytest.mark.parametrize(
    ("language", "flood"), [("python", FLOOD), ("javascript", 'for(;;) console.log("x".repeat(1000))')]
)
def test_a_flood_is_bounded_and_harms_no_other_request(sandbox: Sandbox, language: str, flood: str) -> None:
    run(sandbox, "python", "1", session_id="beside")
    results: list[dict[str, Any]] = []
    other = threading.Thread(target=lambda: results.append(run(sandbox, language, flood, timeout=3, stateful=True)))
    other.start()
    time.sleep(0.5)
    slowest = 0.0
    with httpx.Client(base_url=sandbox.url, timeout=30) as client:
        for _ in range(10):
            start = time.monotonic()
            body = {"code": "print(1)", "session_id": "beside"}
            assert client.post("/v1/jupyter/execute", json=body).json()["data"]["stdout"] == "1\n"
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(0.1)
    other.join()
    assert slowest < 1.5
    assert results[0]["status"] == "timeout"
    assert len(results[0]["stdout"]) < 60_000
    assert results[0]["left_out"]["stdout"] > 0
    assert "characters left out" in results[0]["stdout"]
    assert psutil.Process(sandbox.process.pid).memory_info().rss < 300 * 2**20


@pytest.mark.parametrize(
    ("language", "code", "field", "expected"),
    [
        ("python", "print('\\udce9 x')", "stdout", "\ufffd x\n"),  # as the name of a file in Latin-1
        ("python", "print('\\ud83d')", "stdout", "\ufffd\n"),
        ("python", "print('\\ud83d \\udce9'); print('\\ud83d\\ude00')", "stdout", "\ufffd \ufffd\n\U0001f600\n"),
        ("python", "raise ValueError('\\ud83d')", "evalue", "\ufffd"),
        ("python", "display({'text/plain': '\\ud83d'}, raw=True)", "text/plain", "\ufffd"),
        ("javascript", "'\\ud83d'", "application/json", "\ufffd"),
        ("javascript", "throw new Error('\\ud83d')", "evalue", "\ufffd"),
        ("javascript", "console.log('\\ud83d')", "stdout", "\ufffd\n"),
        ("javascript", "({'\\ud83d': ['\\ude00\\ud83d']})", "application/json", {"\ufffd": ["\ufffd\ufffd"]}),
    ],
)
def test_text_that_is_no_unicode(sandbox: Sandbox, language: str, code: str, field: str, expected: object) -> None:
    data = run(sandbox, language, code, session_id="no-unicode")
    assert data["status"] == ("error" if field == "evalue" else "ok") and data["note"] is None
    places = [data, *data["outputs"], *(output["data"] or {} for output in data["outputs"])]
    assert expected in [place.get(field) for place in places]
    assert run(sandbox, language, "1 + 1", session_id="no-unicode")["result"] == "2"


def test_requests_that_are_no_unicode(sandbox: Sandbox) -> None:
    """JSON's escapes can write what UTF-8 cannot."""

    def ask(path: str, body: dict[str, Any]) -> tuple[int, str]:
        answer = sandbox.client.post(path, content=json.dumps(body).encode())
        return answer.status_code, (answer.json()["error"] or {"code": ""})["code"]

    half = "\ud83d"
    assert ask("/v1/bash/exec", {"command": f"echo {half}"}) == (422, "invalid_request")
    assert ask("/v1/bash/exec", {"command": "true", "exec_dir": f"/{half}"})[0] == 422
    assert ask("/v1/shell/exec", {"command": f"echo {half}"}) == (422, "invalid_request")
    assert ask("/v1/file/write", {"file": str(sandbox.workspace / "x"), "content": half}) == (422, "invalid_request")
    assert ask("/v1/file/read", {"file": f"{sandbox.workspace}/{half}"}) == (422, "invalid_request")
    assert ask("/v1/nodejs/execute", {"code": "1", "stdin": half}) == (422, "invalid_request")
    assert ask("/v1/nodejs/execute", {"code": "1", "files": {"a": half}}) == (422, "invalid_request")
    for language in ("python", "javascript"):
        for more in ({}, {"session_id": "no-unicode"}):
            assert ask("/v1/code/execute", {"language": language, "code": f"'{half}'", **more})[0] in (200, 422)
    call = {"name": "run_command", "arguments": {"command": f"echo {half}"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    called = sandbox.client.post("/mcp", content=json.dumps(message), headers={"content-type": "application/json"})
    assert called.status_code < 500 and "internal_error" not in called.text


def test_folders_whose_name_is_no_unicode(sandbox: Sandbox) -> None:
    folder = os.fsdecode(bytes(sandbox.workspace / "latin-") + b"\xe9")
    Path(folder).mkdir()
    for path in ("/v1/bash/exec", "/v1/shell/exec"):
        entered = sandbox.client.post(path, json={"command": "cd latin-*; pwd", "session_id": f"latin{path[4:8]}"})
        assert entered.status_code == 200 and "latin-\ufffd" in entered.text
        listed = sandbox.client.get(f"{path[:-5]}/sessions")
        assert listed.status_code == 200 and "latin-\ufffd" in listed.text
    chat = {"X-Session-Id": "latin"}
    for command in ("cd latin-*", "pwd"):
        answer = sandbox.client.post("/terminal-server/execute", json={"command": command}, headers=chat)
    assert "latin-\ufffd" in answer.json()["stdout"]
    assert "latin-\ufffd" in sandbox.client.get("/terminal-server/files/cwd", headers=chat).json()["cwd"]
    code = {"code": "import os; print(os.path.basename(os.getcwd()))"}
    assert sandbox.client.post("/terminal-server/code", json=code, headers=chat).json()["stdout"] == "latin-\ufffd\n"


def test_ended_code_takes_its_children_along(sandbox: Sandbox) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '987'], start_new_session=True).pid)"
    for language, text in (
        ("python", code),
        ("python", code + "\nwhile True:\n  try:\n    while True: pass\n  except KeyboardInterrupt: pass"),
    ):
        pid = int(run(sandbox, language, text, timeout=1)["stdout"])
        eventually(lambda pid=pid: not psutil.pid_exists(pid))  # type: ignore[misc]


DAEMON = "(setsid sh -c 'echo $$; exec sleep 984 >/dev/null 2>&1' &); sleep 0.2"


@pytest.mark.parametrize("session", [None, "daemons"])
@pytest.mark.parametrize(
    ("language", "group", "code"),
    [
        ("python", "jupyter", f'import subprocess; print(subprocess.getoutput("{DAEMON}"))'),
        ("javascript", "nodejs", f'console.log(require("child_process").execSync("{DAEMON}").toString())'),
    ],
)
def test_ended_code_takes_its_daemons_along(
    sandbox: Sandbox, language: str, group: str, code: str, session: str | None
) -> None:
    pid = int(run(sandbox, language, code, session_id=session)["stdout"])
    if session:
        assert psutil.pid_exists(pid)
        assert sandbox.client.delete(f"/v1/{group}/sessions/{session}").status_code == 200
    eventually(lambda: not psutil.pid_exists(pid))


def test_forks_are_ended(sandbox: Sandbox) -> None:
    code = "import os, time\nfor _ in range(20):\n  if pid := os.fork(): print(pid)\n  else: time.sleep(600)"
    pids = [int(line) for line in run(sandbox, "python", code)["stdout"].split()]
    assert len(pids) == 20
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_info(sandbox: Sandbox) -> None:
    run(sandbox, "python", "1", session_id="names")
    languages = sandbox.client.get("/v1/code/info").json()["data"]["languages"]
    assert [entry["language"] for entry in languages] == ["python", "javascript"]
    assert all(entry["runtime_version"] for entry in languages)


def test_peer_client(sandbox: Sandbox) -> None:
    client = Peer(base_url=sandbox.url)
    answer = client.code.execute_code(language="python", code="print(6 * 7)")
    assert answer.success and answer.data and answer.data.stdout == "42\n"
    session = client.code.execute_code(language="javascript", code="let x = 1", stateful=True).data
    assert session and session.session_id
    again = client.code.execute_code(language="javascript", code="x + 1", session_id=session.session_id, stateful=True)
    assert again.data and again.data.outputs and again.data.outputs[0]["data"]["text/plain"] == "2"
    info = client.code.get_info().data
    assert info and len(info.languages) == 2


def test_limits_idle_ends_and_stop(tmp_path: Path) -> None:
    with running(tmp_path, max_sessions="2", session_idle_s="2") as sandbox:
        eventually(lambda: bool(sandbox.client.get("/v1/code/info").json()["data"]["languages"][0]["runtime_version"]))
        for name in ("one", "two"):
            run(sandbox, "python", "1", session_id=name)
        assert refused(sandbox, language="python", code="1", session_id="three") == (429, "limit_reached")
        assert refused(sandbox, language="python", code="1") == (429, "limit_reached")
        run(sandbox, "javascript", "1", session_id="js")

        def listed(group: str) -> set[str]:
            return set(sandbox.client.get(f"/v1/{group}/sessions").json()["data"]["sessions"])

        assert listed("jupyter") == {"one", "two"}
        eventually(lambda: not listed("jupyter") and not listed("nodejs"))
        run(sandbox, "python", "import subprocess; subprocess.Popen(['sleep', '986'])", session_id="last")
        run(sandbox, "javascript", "require('child_process').spawn('sleep', ['985']); 1", session_id="last")
        started = children(sandbox)
        assert len(started) >= 4
        sandbox.process.send_signal(signal.SIGTERM)
        sandbox.process.wait(15)
        eventually(lambda: not any(process.is_running() for process in started))
        assert not list((tmp_path / ".cache" / "sandbox" / "kernels").glob("*/*"))


def test_a_killed_server_leaves_no_kernel(tmp_path: Path) -> None:
    with running(tmp_path) as sandbox:
        run(sandbox, "python", "1", session_id="a")
        run(sandbox, "javascript", "1", session_id="a")
        started = children(sandbox)
        os.kill(sandbox.process.pid, signal.SIGKILL)
        eventually(lambda: not any(process.is_running() for process in started), 15)


def test_a_host_without_them(tmp_path: Path) -> None:
    bare = tmp_path / "venv"
    import venv

    venv.create(bare, symlinks=True)
    with running(tmp_path / "root", python=str(bare / "bin" / "python"), node="") as sandbox:
        assert refused(sandbox, language="python", code="1") == (503, "code_unavailable")
        assert refused(sandbox, language="javascript", code="1") == (503, "code_unavailable")
        languages = sandbox.client.get("/v1/code/info").json()["data"]["languages"]
        assert [entry["details"]["status"] for entry in languages] == ["unavailable", "unavailable"]
        assert "ipykernel" in languages[0]["details"]["detail"]


DEEP = """
deep = 1
for _ in range(500): deep = [deep]
"""


def test_output_that_breaks_the_protocol_is_no_crash(sandbox: Sandbox) -> None:
    """Code decides what its own kernel sends."""
    shows = """
class Odd:
    def _repr_mimebundle_(self, **_): return {"text/plain": 5, "application/json": deep, "x/y": [1]}, {"x": deep}
display(Odd()); Odd()
"""
    data = run(sandbox, "python", DEEP + shows)
    assert (data["status"], data["result"]) == ("ok", "5")
    assert data["outputs"][0]["data"] == {"text/plain": "5", "x/y": [1]}
    assert data["left_out"]["application/json"] > 0
    sends = """
kernel = get_ipython().kernel
for kind, content in (("stream", {}), ("stream", {"name": 1, "text": [2]}), ("execute_result", {"data": 5}),
        ("error", {"ename": 1, "traceback": 2}), ("execute_input", {"execution_count": "x"}), ("display_data", deep)):
    kernel.session.send(kernel.iopub_socket, kind, content if isinstance(content, dict) else {"data": {"x": deep}},
        parent=kernel.get_parent())
print("still here")
"""
    data = run(sandbox, "python", DEEP + sends)
    assert "still here" in data["stdout"] and data["status"] == "ok"


@pytest.mark.parametrize("depth", [101, 500])
def test_deep_values_are_left_out_in_javascript(sandbox: Sandbox, depth: int) -> None:
    code = f"let a = 1; for (let i = 0; i < {depth}; i++) a = [a]; a"
    for stateful in (True, False):
        data = run(sandbox, "javascript", code, stateful=stateful)
        assert (data["status"], "[Array]" in data["result"]) == ("ok", True), data
        assert set(data["outputs"][0]["data"]) == {"text/plain"}


@pytest.mark.parametrize("raw", ["[" * 100_000, "[" * 300 + "]" * 300, "{"])
def test_json_of_programs_is_bounded_in_depth(raw: str) -> None:
    with pytest.raises(ValueError):
        loads(raw)
    assert loads("[" * MOST_DEPTH + "]" * MOST_DEPTH)
    assert Codec().unpack([DELIMITER, b"", raw.encode(), b"{}", b"{}", b"{}"]) is None
    assert Message("stream", "", raw.encode()).content == {}
