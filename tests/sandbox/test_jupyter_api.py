"""Python sessions: /v1/jupyter."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from agent_sandbox import Sandbox as Peer

from tests.support.sandbox import Sandbox


def execute(sandbox: Sandbox, code: str, session: str | None = "python", **more: Any) -> dict[str, Any]:
    answer = sandbox.client.post("/v1/jupyter/execute", json={"code": code, "session_id": session, **more})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def test_streams_are_separate(sandbox: Sandbox) -> None:
    data = execute(sandbox, "import sys; print('out'); print('err', file=sys.stderr)")
    assert (data["stdout"], data["stderr"]) == ("out\n", "err\n")
    assert [(part["name"], part["text"]) for part in data["outputs"]] == [("stdout", "out\n"), ("stderr", "err\n")]


def test_a_program_writes_too(sandbox: Sandbox) -> None:
    for number in range(5):
        ran = execute(sandbox, f"import subprocess; subprocess.run(['echo', 'raw{number}']); None")
        assert ran["stdout"] == f"raw{number}\n"


def test_a_session_is_made_and_named(sandbox: Sandbox) -> None:
    first = execute(sandbox, "value = 1", None)
    assert first["session_id"] and first["kernel_name"] == "python3"
    assert execute(sandbox, "value", first["session_id"])["result"] == "1"


@pytest.mark.parametrize(
    ("code", "mime"),
    [
        ("from IPython.display import HTML; HTML('<b>x</b>')", "text/html"),
        ("from IPython.display import SVG; SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')", "image/svg+xml"),
        ("from IPython.display import JSON; JSON({'a': [1]})", "application/json"),
        ("from IPython.display import Latex; Latex('$x$')", "text/latex"),
        ("import pandas; pandas.DataFrame({'a': [1]})", "text/html"),
        ("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()", "image/png"),
        ("import matplotlib.pyplot as plt; plt.plot([1, 2])", "image/png"),
    ],
)
def test_rich_results(sandbox: Sandbox, code: str, mime: str) -> None:
    outputs = execute(sandbox, code)["outputs"]
    assert any(mime in (output["data"] or {}) for output in outputs), outputs


def test_display_updates_and_clears(sandbox: Sandbox) -> None:
    code = "h = display(1, display_id=True); h.update(2)"
    assert [o["data"]["text/plain"] for o in execute(sandbox, code)["outputs"]] == ["2"]
    code = "from IPython.display import clear_output\nfor i in range(3):\n  clear_output(wait=True); display(i)"
    assert [o["data"]["text/plain"] for o in execute(sandbox, code)["outputs"]] == ["2"]


def test_errors_have_a_plain_traceback(sandbox: Sandbox) -> None:
    data = execute(sandbox, "def f(): return 1 / 0\nprint('before')\nf()")
    assert data["status"] == "error" and data["stdout"] == "before\n" and data["exit_code"] == 1
    assert "\x1b" not in "".join(data["traceback"])
    assert data["traceback"][-1] == "ZeroDivisionError: division by zero"
    error = data["outputs"][-1]
    assert (error["output_type"], error["ename"], error["evalue"]) == ("error", "ZeroDivisionError", "division by zero")
    assert execute(sandbox, "def")["outputs"][-1]["ename"] == "SyntaxError"


def test_input_fails_at_once(sandbox: Sandbox) -> None:
    start = time.monotonic()
    data = execute(sandbox, "input('name? ')")
    assert time.monotonic() - start < 2
    assert data["status"] == "error"
    assert "no standard input" in data["note"]


def test_await_and_magics_and_help(sandbox: Sandbox) -> None:
    assert execute(sandbox, "import asyncio; await asyncio.sleep(0.01, 7)")["result"] == "7"
    assert "len" in execute(sandbox, "len?")["stdout"]


def test_large_results_are_bounded(sandbox: Sandbox) -> None:
    data = execute(sandbox, "'x' * 10**6")
    assert len(data["result"]) < 60_000 and data["left_out"]["text/plain"] > 900_000
    data = execute(sandbox, "from IPython.display import HTML; HTML('x' * (9 * 2**20))")
    assert "text/html" not in data["outputs"][0]["data"] and data["left_out"]["text/html"]
    data = execute(sandbox, "for i in range(2000): display(i)")
    assert len(data["outputs"]) == 500 and data["left_out"]["outputs"] == 1500


def test_a_result_too_large_to_send(sandbox: Sandbox) -> None:
    data = execute(sandbox, "print('y' * (80 * 2**20))", "huge")
    assert data["status"] == "ok"
    assert "lost" in data["note"]
    assert execute(sandbox, "print(1)", "huge")["stdout"] == "1\n"


def test_timeout_keeps_the_session(sandbox: Sandbox) -> None:
    execute(sandbox, "kept = 5", "timeout")
    data = execute(sandbox, "import time; time.sleep(60)", "timeout", timeout=0.5)
    assert data["status"] == "timeout" and not data["restarted"]
    assert execute(sandbox, "kept", "timeout")["result"] == "5"


def test_ignored_interrupt_ends_the_kernel(sandbox: Sandbox) -> None:
    code = "lost = 1\nprint('before')\nimport time\nwhile True:\n  try: time.sleep(1)\n  except KeyboardInterrupt: pass"
    data = execute(sandbox, code, "stubborn", timeout=1)
    assert data["status"] == "timeout" and data["restarted"] and data["stdout"] == "before\n"
    assert execute(sandbox, "'lost' in globals()", "stubborn")["result"] == "False"


def test_a_kernel_that_dies(sandbox: Sandbox) -> None:
    body = {
        "code": "print('last words', flush=True)\nimport os, time; time.sleep(.2); os._exit(3)",
        "session_id": "dies",
    }
    answer = sandbox.client.post("/v1/jupyter/execute", json=body)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "kernel_failed" and "code 3" in answer.json()["message"]
    assert answer.json()["data"]["stdout"] == "last words\n"
    assert execute(sandbox, "1 + 1", "dies")["result"] == "2"
    body["code"] = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert "SIGKILL" in sandbox.client.post("/v1/jupyter/execute", json=body).json()["message"]


def test_exit_ends_the_kernel(sandbox: Sandbox) -> None:
    assert execute(sandbox, "x = 1; exit()", "exits")["restarted"]
    assert execute(sandbox, "'x' in globals()", "exits")["result"] == "False"


def test_interrupt_from_another_request(sandbox: Sandbox) -> None:
    execute(sandbox, "import time", "interrupted")
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(execute(sandbox, "time.sleep(60)", "interrupted")))
    thread.start()
    time.sleep(0.5)
    answer = sandbox.client.post("/v1/jupyter/sessions/interrupted/interrupt").json()
    assert answer["data"] == {"session_id": "interrupted", "interrupted": True}
    thread.join(5)
    assert results[0]["outputs"][-1]["ename"] == "KeyboardInterrupt"
    answer = sandbox.client.post("/v1/jupyter/sessions/interrupted/interrupt").json()
    assert answer["data"]["interrupted"] is False
    assert sandbox.client.post("/v1/jupyter/sessions/none/interrupt").status_code == 404


def test_calls_queue_in_a_session_and_run_beside_each_other_in_two(sandbox: Sandbox) -> None:
    for name in ("left", "right"):
        execute(sandbox, "import time; seen = []", name)

    def at_once(*sessions: str) -> float:
        threads = [
            threading.Thread(target=execute, args=(sandbox, f"seen.append({n}); time.sleep(0.6)", name))
            for n, name in enumerate(sessions)
        ]
        start = time.monotonic()
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        return time.monotonic() - start

    assert at_once("left", "left") > 1.15
    assert execute(sandbox, "seen", "left")["result"] == "[0, 1]"
    assert at_once("left", "right") < 1.1


def test_the_folder_of_a_session(sandbox: Sandbox, tmp_path: Any) -> None:
    body = {"session_id": "folder", "cwd": str(tmp_path)}
    assert sandbox.client.post("/v1/jupyter/sessions/create", json=body).json()["data"]["created"]
    assert execute(sandbox, "import os; os.getcwd()", "folder")["result"] == repr(str(tmp_path))
    assert execute(sandbox, "os.getcwd()", "folder", cwd="/")["result"] == "'/'"
    assert execute(sandbox, "os.getcwd()", "folder")["result"] == "'/'"


def test_sessions_are_listed_and_ended(sandbox: Sandbox) -> None:
    execute(sandbox, "1", "listed")
    sessions = sandbox.client.get("/v1/jupyter/sessions").json()["data"]["sessions"]
    assert sessions["listed"]["state"] == "IDLE"
    assert sandbox.client.delete("/v1/jupyter/sessions/listed").status_code == 200
    answer = sandbox.client.delete("/v1/jupyter/sessions/listed")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")


def test_unknown_kernel(sandbox: Sandbox) -> None:
    execute(sandbox, "1")
    answer = sandbox.client.post("/v1/jupyter/execute", json={"code": "1", "kernel_name": "julia"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "code_unavailable")


def test_peer_client(sandbox: Sandbox) -> None:
    client = Peer(base_url=sandbox.url)
    made = client.jupyter.create_session(session_id="peer", cwd="/tmp").data
    assert made and made.session_id == "peer"
    answer = client.jupyter.execute_code(code="print('hi'); 5", session_id="peer", timeout=10)
    assert answer.success and answer.data and answer.data.status == "ok"
    assert [output.output_type for output in answer.data.outputs] == ["stream", "execute_result"]
    info = client.jupyter.get_info().data
    assert info and info.active_sessions >= 1
    listed = client.jupyter.list_sessions().data
    assert listed and "peer" in listed.sessions
    assert client.jupyter.delete_session("peer").success
    gone = client.jupyter.delete_session("peer")
    assert gone.success is False
    assert client.jupyter.delete_sessions().success
