"""Code in both languages: /v1/code, limits, floods, and that nothing stays behind."""

from __future__ import annotations

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


def test_ended_code_takes_its_children_along(sandbox: Sandbox) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '987'], start_new_session=True).pid)"
    for language, text in (
        ("python", code),
        ("python", code + "\nwhile True:\n  try:\n    while True: pass\n  except KeyboardInterrupt: pass"),
    ):
        pid = int(run(sandbox, language, text, timeout=1)["stdout"])
        eventually(lambda pid=pid: not psutil.pid_exists(pid))  # type: ignore[misc]


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
