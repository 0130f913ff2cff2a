"""Commands over pipes: /v1/bash and /v1/shell, by plain HTTP and by the peer's client."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from agent_sandbox import Sandbox as PeerClient

from sandbox_api.shell.process import Process, Spawned
from sandbox_api.shell.spool import Spool
from sandbox_api.shell.state import read_dump
from tests.support.sandbox import Sandbox, running

KIB, MIB = 1024, 2**20


def bash(sandbox: Sandbox, command: str, **options: Any) -> dict[str, Any]:
    answer = sandbox.client.post("/v1/bash/exec", json={"command": command, **options})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def shell(sandbox: Sandbox, command: str, **options: Any) -> dict[str, Any]:
    answer = sandbox.client.post("/v1/shell/exec", json={"command": command, **options})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def refused(sandbox: Sandbox, path: str, status: int, code: str, **body: Any) -> None:
    answer = sandbox.client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["success"] is False


def read(sandbox: Sandbox, started: dict[str, Any], **options: Any) -> dict[str, Any]:
    names = {"session_id": started["session_id"], "command_id": started["command_id"]}
    answer = sandbox.client.post("/v1/bash/output", json={**names, **options})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def wait_until_gone(pid: int, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} still runs"
            time.sleep(0.02)


@pytest.fixture
def peer(sandbox: Sandbox) -> PeerClient:
    return PeerClient(base_url=sandbox.url)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """With tight limits."""
    limits = {"max_commands": "3", "max_sessions": "2", "command_output_bytes": "65536", "answer_output_chars": "1000"}
    with running(tmp_path_factory.mktemp("small"), **limits) as started:
        yield started


def test_streams_and_exit_code_apart(sandbox: Sandbox) -> None:
    answer = bash(sandbox, "echo out; echo err >&2; exit 3")
    assert (answer["stdout"], answer["stderr"], answer["exit_code"]) == ("out\n", "err\n", 3)
    assert (answer["status"], answer["offset"], answer["stderr_offset"]) == ("completed", 4, 4)


def test_shell_exec_alone_is_enough(sandbox: Sandbox) -> None:
    answer = shell(sandbox, "echo test")
    assert (answer["stdout"], answer["stderr"], answer["output"], answer["exit_code"]) == ("test\n", "", "test\n", 0)
    assert answer["console"][0]["command"] == "echo test"
    assert answer["status"] == "completed"


def test_output_has_both_streams_in_order(sandbox: Sandbox) -> None:
    answer = shell(sandbox, "echo 1; sleep 0.1; echo 2 >&2; sleep 0.1; echo 3")
    assert answer["output"] == "1\n2\n3\n"


def test_a_command_sees_a_fresh_shell(sandbox: Sandbox) -> None:
    answer = bash(
        sandbox, 'echo "$0 $- $#"; umask; ps -o pgid=,sid= -p $$ | tr -s " "; echo $$; readlink /proc/$$/fd/0'
    )
    name, mask, group, pid, stdin = answer["stdout"].splitlines()
    assert (name, mask, stdin) == ("bash hBc 0", "0022", "/dev/null")
    assert group.split() == [pid, pid]


def test_environment_has_no_settings_of_ours(sandbox: Sandbox) -> None:
    names = [line.partition("=")[0] for line in bash(sandbox, "env")["stdout"].splitlines()]
    assert {name for name in names if name.startswith("SANDBOX_")} == {"SANDBOX_ROOT", "SANDBOX_WORKSPACE"}
    assert bash(sandbox, "pwd; echo $X", env={"X": "ü y"})["stdout"] == f"{sandbox.workspace}\nü y\n"


def test_command_not_found_is_the_shells_matter(sandbox: Sandbox) -> None:
    answer = shell(sandbox, "no_such_program")
    assert answer["exit_code"] == 127
    assert answer["stderr"] == "bash: line 1: no_such_program: command not found\n"


def test_death_by_signal(sandbox: Sandbox) -> None:
    answer = bash(sandbox, "kill -9 $$")
    assert (answer["exit_code"], answer["signal"], answer["status"]) == (137, "SIGKILL", "completed")


def test_undecodable_bytes_are_replaced(sandbox: Sandbox) -> None:
    assert bash(sandbox, r"printf 'a\377b\xe2\x82'")["stdout"] == "a�b�"


def test_very_long_command(sandbox: Sandbox) -> None:
    text = "x" * 300_000
    assert bash(sandbox, f"echo '{text}' | wc -c")["stdout"].strip() == "300001"


def test_input(sandbox: Sandbox) -> None:
    assert bash(sandbox, "cat", stdin="given")["stdout"] == "given"
    assert bash(sandbox, "cat; echo over")["stdout"] == "over\n"


def test_large_input(sandbox: Sandbox) -> None:
    assert bash(sandbox, "sleep 0.2; wc -c", stdin="x" * 900_000)["stdout"].strip() == "900000"


# Sessions


def test_a_session_keeps_what_commands_leave(sandbox: Sandbox) -> None:
    def run(command: str) -> dict[str, Any]:
        return bash(sandbox, command, session_id="keeps")

    run(
        "mkdir -p 'sub dir'; cd 'sub dir'; export A='1\n2'; B=(x 'y z'); "
        'f() { echo "f $1"; }; umask 027; shopt -s extglob'
    )
    answer = run('pwd; echo "$A"; echo "${B[1]}"; f 3; umask; shopt -q extglob && echo ext; printenv A')
    assert answer["stdout"] == f"{sandbox.workspace}/sub dir\n1\n2\ny z\nf 3\n0027\next\n1\n2\n"
    assert run("exit 5")["exit_code"] == 5
    run("unset A; cd ..; exit 1")
    assert run('echo "${A-unset}"; pwd; cd - >/dev/null; pwd')["stdout"] == (
        f"unset\n{sandbox.workspace}\n{sandbox.workspace}/sub dir\n"
    )
    assert run("nope")["stderr"].startswith("bash: line 1: nope")


def test_a_session_survives_its_commands(sandbox: Sandbox) -> None:
    first = bash(sandbox, "cd /usr; X=1; false")
    name = first["session_id"]
    assert bash(sandbox, "kill -9 $$; x=1", session_id=name)["exit_code"] == 137
    assert bash(sandbox, "set -e; false; echo no", session_id=name)["exit_code"] == 1
    assert bash(sandbox, "echo $X; pwd; false; echo no", session_id=name)["stdout"] == "1\n/usr\n"
    assert bash(sandbox, "set +e; exec echo $X", session_id=name)["stdout"] == "1\n"
    assert bash(sandbox, "trap 'echo bye' EXIT; cd /", session_id=name)["stdout"] == "bye\n"
    assert bash(sandbox, "pwd", session_id=name)["stdout"] == "/\n"


def test_tracing_shows_the_commands_and_nothing_of_ours(sandbox: Sandbox) -> None:
    def run(command: str) -> dict[str, Any]:
        return bash(sandbox, command, session_id="traces")

    assert "sandbox" not in run("set -x; echo a; X=1")["stderr"]
    answer = run("echo $X; Y=2")
    assert (answer["stdout"], answer["stderr"]) == ("1\n", "+ echo 1\n+ Y=2\n")
    assert run("printenv BASH_ENV; echo $Y; echo $-")["stdout"] == "2\nhxBc\n"
    trapped = run("trap 'echo bye' EXIT; cd /usr")
    assert trapped["stdout"] == "bye\n" and "sandbox" not in trapped["stderr"]
    assert run("pwd")["stdout"] == "/usr\n"
    assert run("set +x")["exit_code"] == 0
    assert run("pwd; nope")["stderr"] == "bash: line 1: nope: command not found\n"


@pytest.mark.parametrize("command", ["if then", "X=1; if then", "echo a\nif then"])
def test_syntax_errors_show_nothing_of_ours(sandbox: Sandbox, command: str) -> None:
    bash(sandbox, "set -x", session_id="traced")
    for options in ({}, {"session_id": "traced"}):
        answer = bash(sandbox, command, **options)
        line = command.count("\n") + 1
        assert answer["exit_code"] == 2
        assert f"line {line}: `{command.splitlines()[-1]}'\n" in answer["stderr"]
        assert "sandbox" not in answer["stderr"] and "SECONDS" not in answer["stderr"]


def test_variables_of_one_command_do_not_stay(sandbox: Sandbox) -> None:
    bash(sandbox, "export KEPT=mine", session_id="once")
    assert (
        bash(sandbox, "echo $KEPT $ONCE; cd /", session_id="once", env={"KEPT": "other", "ONCE": "1"})["stdout"]
        == "other 1\n"
    )
    assert bash(sandbox, "echo $KEPT ${ONCE-unset}", session_id="once")["stdout"] == "mine unset\n"


def test_commands_side_by_side_in_a_session(sandbox: Sandbox) -> None:
    server = bash(sandbox, "cd /usr; sleep 30", session_id="beside", async_mode=True)
    assert bash(sandbox, "cd /etc; pwd", session_id="beside")["stdout"] == "/etc\n"
    sandbox.client.post("/v1/bash/kill", json={"session_id": "beside", "command_id": server["command_id"]})
    assert bash(sandbox, "pwd", session_id="beside")["stdout"] == "/etc\n"


def test_commands_side_by_side_keep_each_others_changes(sandbox: Sandbox) -> None:
    def run(command: str, **options: Any) -> dict[str, Any]:
        return bash(sandbox, command, session_id="merged", **options)

    slow = run(
        "export X=1; Z=slow; f() { echo f; }; alias a=1; cd /usr; unset HOME; PATH=$PATH:/slow; echo set; "
        f"until [ -e {sandbox.workspace}/go ]; do sleep 0.05; done",
        async_mode=True,
    )
    assert read(sandbox, slow, wait=True)["stdout"] == "set\n"
    assert (
        run("export Y=2; Z=quick; g() { echo g; }; shopt -s extglob; alias b=2; cd /etc; echo ${X-none}")["stdout"]
        == "none\n"
    )
    (sandbox.workspace / "go").touch()
    while read(sandbox, slow, offset=4, wait=True)["command"]["status"] == "running":
        pass
    (sandbox.workspace / "go").unlink()
    # What both have set is as the one that was started last wants it.
    answer = run("printenv X Y; echo $Z ${HOME-none} ${PATH##*:}; f; g; shopt -q extglob && alias a b; pwd")
    assert answer["stdout"] == "1\n2\nquick none /slow\nf\ng\nalias a='1'\nalias b='2'\n/etc\n"


def test_exported_functions_stay(sandbox: Sandbox) -> None:
    def run(command: str) -> str:
        return str(bash(sandbox, command, session_id="functions")["stdout"])

    run("one() { cat <<E\ntwo () \nE\n}; two() { echo 2; }; export -f two")
    assert run("one; bash -c 'two; one' 2>/dev/null") == "two () \n2\n"
    run("unset -f one; three() { echo 3; }")
    assert run("declare -F | grep -v __sandbox") == "declare -f three\ndeclare -fx two\n"


def test_exec_dir(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    assert bash(sandbox, "pwd", exec_dir=str(link))["stdout"] == f"{tmp_path}/real\n"
    assert bash(sandbox, "pwd", exec_dir=str(link), preserve_symlinks=True)["stdout"] == f"{link}\n"
    bash(sandbox, "true", exec_dir=str(tmp_path), session_id="dir")
    assert bash(sandbox, "pwd", session_id="dir")["stdout"] == f"{tmp_path}\n"
    refused(sandbox, "/v1/bash/exec", 422, "path_not_absolute", command="pwd", exec_dir="sub")
    refused(sandbox, "/v1/shell/exec", 404, "file_not_found", command="pwd", exec_dir="/no/such")
    refused(sandbox, "/v1/bash/exec", 409, "not_a_directory", command="pwd", exec_dir="/etc/passwd")
    assert shell(sandbox, "pwd", exec_dir="/no/such", strict=False)["output"] == f"{sandbox.workspace}\n"
    gone = tmp_path / "gone"
    gone.mkdir()
    bash(sandbox, f"cd {gone}", session_id="gone")
    gone.rmdir()
    answer = bash(sandbox, "pwd", session_id="gone")
    assert answer["stdout"] == f"{sandbox.workspace}\n"
    assert answer["stderr"] == (
        f"sandbox: the session's folder {gone} is not usable (No such file or directory); "
        f"this command runs in {sandbox.workspace}\n"
    )


def test_a_session_leaves_a_folder_that_was_removed(sandbox: Sandbox, tmp_path: Path) -> None:
    bash(sandbox, f"mkdir {tmp_path}/a; cd {tmp_path}/a; rmdir ../a", session_id="removed")
    assert bash(sandbox, "cd /usr", session_id="removed")["exit_code"] == 0
    answer = bash(sandbox, "pwd", session_id="removed")
    assert (answer["stdout"], answer["stderr"]) == ("/usr\n", "")


def test_what_is_too_large_for_the_system(sandbox: Sandbox) -> None:
    for variables, name in (
        ({"BIG": "x" * 200_000}, "the variable BIG has 200004 bytes"),
        ({f"V{number}": "x" * 100_000 for number in range(100)}, "the variables of this command have 10"),
    ):
        answer = sandbox.client.post("/v1/bash/exec", json={"command": "x=1", "env": variables})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["retryable"]) == (413, "too_large", False)
        assert name in error["message"]
    assert bash(sandbox, "echo ${#OK}", env={"OK": "x" * 100_000})["stdout"] == "100000\n"
    assert not list((sandbox.root / ".cache" / "sandbox" / "shell").glob("*.before"))


def test_sessions_are_set_up_listed_and_closed(sandbox: Sandbox, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.sh"
    snapshot.write_text("greet() { echo hello $NAME; }\n")
    body = {"session_id": "made", "exec_dir": "/usr", "snapshot_path": str(snapshot), "env": {"NAME": "a b"}}
    made = sandbox.client.post("/v1/bash/sessions/create", json=body).json()["data"]
    assert (made["session_id"], made["working_dir"], made["status"]) == ("made", "/usr", "ready")
    assert bash(sandbox, "greet", session_id="made")["stdout"] == "hello a b\n"
    listed = {entry["session_id"]: entry for entry in sandbox.client.get("/v1/bash/sessions").json()["data"]}
    assert listed["made"]["command_count"] == 2
    pid = bash(sandbox, "sleep 60", session_id="made", async_mode=True)["pid"]
    assert sandbox.client.post("/v1/bash/sessions/made/close").status_code == 200
    wait_until_gone(pid)
    refused(sandbox, "/v1/bash/output", 404, "session_not_found", session_id="made")
    refused(sandbox, "/v1/bash/sessions/create", 404, "file_not_found", snapshot_path="/no/such")


def test_a_session_is_idle_when_nothing_of_it_runs(tmp_path: Path) -> None:
    with running(tmp_path, session_idle_s="4") as own:

        def sessions() -> set[str]:
            return {session["session_id"] for session in own.client.get("/v1/bash/sessions").json()["data"]}

        pid = int(bash(own, "X=kept; sleep 300 >/dev/null 2>&1 & echo $!", session_id="serves")["stdout"])
        bash(own, "X=1", session_id="unused")
        bash(own, "X=kept; sleep 6", session_id="long")
        time.sleep(2.2)  # a sweep comes every two seconds
        assert bash(own, "echo $X", session_id="long")["stdout"] == "kept\n"
        deadline = time.monotonic() + 20
        while "unused" in sessions():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert psutil.pid_exists(pid)
        assert bash(own, "echo $X", session_id="serves")["stdout"] == "kept\n"


# Long commands


def test_soft_timeout_answers_and_the_command_goes_on(sandbox: Sandbox) -> None:
    started = bash(sandbox, "echo first; sleep 0.5; echo second", timeout=0.2)
    assert (started["status"], started["stdout"], started["exit_code"]) == ("running", "first\n", None)
    rest = read(sandbox, started, offset=started["offset"], wait=True, wait_timeout=5)
    assert rest["stdout"] == "second\n"


def test_hard_timeout_ends_the_group_and_returns_the_partial_output(sandbox: Sandbox) -> None:
    start = time.monotonic()
    answer = bash(sandbox, "echo part; sleep 60 & echo $!; wait", hard_timeout=0.3)
    assert (answer["status"], answer["stdout"].split()[0]) == ("timed_out", "part")
    assert time.monotonic() - start < 2
    wait_until_gone(int(answer["stdout"].split()[1]))


def test_hard_timeout_of_what_ignores_signals(sandbox: Sandbox) -> None:
    start = time.monotonic()
    answer = shell(sandbox, "trap '' TERM INT HUP; while :; do sleep 0.1; done", hard_timeout=0.2)
    assert (answer["status"], answer["exit_code"]) == ("hard_timeout", 137)
    assert time.monotonic() - start < 5


STUBBORN = {
    "in the group": "(trap '' TERM; echo $BASHPID; exec sleep 60)",
    "in the group, silent": "(trap '' TERM; echo $BASHPID; exec sleep 60 >/dev/null 2>&1)",
    "in its own session": "(trap '' TERM; exec setsid sh -c 'echo $$; exec sleep 60 >/dev/null 2>&1')",
}


@pytest.mark.parametrize("child", STUBBORN.values(), ids=STUBBORN)
def test_hard_timeout_ends_children_that_ignore_signals(sandbox: Sandbox, child: str) -> None:
    answer = bash(sandbox, f"{child} & wait", hard_timeout=0.5)
    assert (answer["status"], answer["exit_code"]) == ("timed_out", 143)
    wait_until_gone(int(answer["stdout"]))


@pytest.mark.parametrize("child", STUBBORN.values(), ids=STUBBORN)
def test_kill_ends_children_that_ignore_signals(sandbox: Sandbox, child: str) -> None:
    started = bash(sandbox, f"{child} & wait", async_mode=True)
    pid = int(read(sandbox, started, wait=True)["stdout"])
    body = {"session_id": started["session_id"], "grace": 0.2}
    assert sandbox.client.post("/v1/bash/kill", json=body).json()["data"]["status"] == "killed"
    wait_until_gone(pid)


def test_kill_reaches_what_an_ended_command_left_running(sandbox: Sandbox) -> None:
    done = bash(sandbox, "(setsid sh -c 'echo $$; exec sleep 63 >/dev/null 2>&1' &); sleep 0.2")
    pid = int(done["stdout"])
    assert psutil.pid_exists(pid)
    answer = sandbox.client.post("/v1/bash/kill", json={"session_id": done["session_id"]}).json()["data"]
    assert (answer["status"], answer["exit_code"]) == ("completed", 0)
    wait_until_gone(pid)


def test_closing_a_session_ends_what_left_its_process_group(sandbox: Sandbox) -> None:
    # The second command carries the state of the first one, but not the mark of its processes.
    for command in ("export A=1", "(setsid sh -c 'echo $$; exec sleep 64 >/dev/null 2>&1' &); sleep 0.2"):
        daemon = bash(sandbox, command, session_id="daemons")
    other = bash(sandbox, "(setsid sh -c 'echo $$; exec sleep 65 >/dev/null 2>&1' &); sleep 0.2", session_id="others")
    assert sandbox.client.post("/v1/bash/sessions/daemons/close").status_code == 200
    wait_until_gone(int(daemon["stdout"]))
    assert psutil.pid_exists(int(other["stdout"]))
    assert sandbox.client.post("/v1/bash/sessions/others/close").status_code == 200
    wait_until_gone(int(other["stdout"]))


def test_closed_sessions_leave_no_zombies(sandbox: Sandbox) -> None:
    server = psutil.Process(sandbox.process.pid)
    started = [bash(sandbox, "sleep 66", async_mode=True) for _ in range(3)]
    for command in started:
        sandbox.client.post(f"/v1/bash/sessions/{command['session_id']}/close")
    deadline = time.monotonic() + 5
    while {command["pid"] for command in started} & {child.pid for child in server.children()}:
        assert time.monotonic() < deadline, server.children()
        time.sleep(0.02)


def test_no_change_timeout(sandbox: Sandbox) -> None:
    answer = shell(sandbox, "echo a; sleep 30", no_change_timeout=0.3, id="quiet")
    assert (answer["status"], answer["stdout"]) == ("no_change_timeout", "a\n")
    assert sandbox.client.post("/v1/shell/kill", json={"id": "quiet"}).json()["data"]["status"] == "terminated"


def test_asynchronous_command_with_offsets_input_and_end(sandbox: Sandbox) -> None:
    started = bash(sandbox, 'while read -r line; do echo "got $line"; done; echo over', async_mode=True)
    assert started["status"] == "running"
    names = {"session_id": started["session_id"], "command_id": started["command_id"]}
    assert sandbox.client.post("/v1/bash/write", json={**names, "input": "äb\n"}).status_code == 200
    first = read(sandbox, started, wait=True)
    assert (first["stdout"], first["offset"], first["command"]["status"]) == ("got äb\n", 8, "running")
    assert sandbox.client.post("/v1/bash/write", json={**names, "input": "", "eof": True}).status_code == 200
    rest = read(sandbox, started, offset=8, wait=True)
    while rest["command"]["status"] == "running":
        rest = read(sandbox, started, offset=8, wait=False)
    assert (rest["stdout"], rest["command"]["exit_code"]) == ("over\n", 0)
    refused(sandbox, "/v1/bash/write", 409, "command_finished", **names, input="x")


def test_characters_are_not_split_between_polls(sandbox: Sandbox) -> None:
    started = bash(sandbox, r"printf 'a\xe2'; sleep 0.3; printf '\x82\xacz'", async_mode=True)
    first = read(sandbox, started, wait=True)
    assert (first["stdout"], first["offset"]) == ("a", 1)
    second = read(sandbox, started, offset=1, wait=True)
    while second["stdout"] == "":
        second = read(sandbox, started, offset=1, wait=True)
    assert second["stdout"] == "€z"


def test_waiting_for_output_ends_with_the_time(sandbox: Sandbox) -> None:
    started = bash(sandbox, "sleep 30", async_mode=True, session_id="poll")
    start = time.monotonic()
    assert read(sandbox, started, wait=True, wait_timeout=0.2)["stdout"] == ""
    assert 0.15 < time.monotonic() - start < 2
    sandbox.client.post("/v1/bash/sessions/poll/close")


def test_kill_reaches_all_that_was_started(sandbox: Sandbox) -> None:
    started = bash(sandbox, "set -m; sleep 61 & echo $!; bash -c 'sleep 62 & echo $!; wait' & wait", async_mode=True)
    pids: list[int] = []
    while len(pids) < 2:
        pids = [int(word) for word in read(sandbox, started, wait=True, wait_timeout=0.2)["stdout"].split()]
    answer = sandbox.client.post("/v1/bash/kill", json={"session_id": started["session_id"]}).json()["data"]
    assert answer["status"] == "killed"
    for pid in (started["pid"], *pids):
        wait_until_gone(pid)


def test_signals(sandbox: Sandbox) -> None:
    started = bash(sandbox, "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done", async_mode=True)
    assert read(sandbox, started, wait=True)["stdout"] == "ready\n"
    body = {"session_id": started["session_id"], "signal": "SIGINT"}
    assert sandbox.client.post("/v1/bash/kill", json=body).status_code == 200
    end = read(sandbox, started, offset=6, wait=True)
    while end["command"]["status"] == "running":
        end = read(sandbox, started, offset=6)
    assert (end["stdout"], end["command"]["exit_code"]) == ("caught\n", 9)
    refused(sandbox, "/v1/bash/kill", 422, "invalid_request", session_id=started["session_id"], signal="SIGNOPE")


def test_background_children_do_not_hold_the_answer_and_live_on(sandbox: Sandbox) -> None:
    start = time.monotonic()
    answer = bash(sandbox, "(sleep 0.6; echo late) & echo now")
    assert time.monotonic() - start < 0.5
    assert (answer["stdout"], answer["status"]) == ("now\n", "completed")
    time.sleep(0.8)
    assert read(sandbox, answer, offset=answer["offset"])["stdout"] == "late\n"


# Streaming


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def test_stream(sandbox: Sandbox) -> None:
    body = {"command": "echo ä; sleep 0.2; echo e >&2; exit 4"}
    with sandbox.client.stream("POST", "/v1/shell/stream", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        seen = list(events(response))
    assert [name for name, _ in seen] == ["started", "stdout", "stderr", "exit"]
    assert (seen[1][1]["data"], seen[1][1]["offset"], seen[2][1]["data"]) == ("ä\n", 3, "e\n")
    assert (seen[3][1]["exit_code"], seen[3][1]["status"]) == (4, "completed")


@pytest.mark.parametrize("what", ["kill", "detach"])
def test_stream_when_the_reader_goes_away(sandbox: Sandbox, what: str) -> None:
    body = {"command": "echo on; sleep 31", "on_disconnect": what}
    with sandbox.client.stream("POST", "/v1/shell/stream", json=body) as response:
        started = next(events(response))[1]
    if what == "kill":
        wait_until_gone(started["pid"])
        return
    time.sleep(0.3)
    assert psutil.pid_exists(started["pid"])
    names = {"session_id": started["session_id"], "on_disconnect": "kill"}
    with sandbox.client.stream("GET", "/v1/shell/stream", params=names) as response:
        seen = events(response)
        assert [next(seen)[0], next(seen)[1]["data"]] == ["started", "on\n"]
    wait_until_gone(started["pid"])


def test_exec_streams_for_who_asks_for_events(sandbox: Sandbox) -> None:
    headers = {"Accept": "text/event-stream"}
    with sandbox.client.stream("POST", "/v1/shell/exec", json={"command": "echo x"}, headers=headers) as response:
        assert [name for name, _ in events(response)] == ["started", "stdout", "exit"]


# Bounds


def test_long_output_is_cut_in_the_middle_and_the_rest_can_be_read(sandbox: Sandbox) -> None:
    answer = bash(sandbox, "seq 1 200000", max_output_length=1000)
    assert answer["stdout"].startswith("1\n2\n3\n") and answer["stdout"].endswith("199999\n200000\n")
    assert len(answer["stdout"]) < 1200
    omitted = answer["stdout_omitted"]
    text, offset = answer["stdout"][: omitted["offset"]], omitted["offset"]
    while offset < answer["offset"]:
        part = read(sandbox, answer, offset=offset)
        text, offset = text + part["stdout"], part["offset"]
    assert text == "".join(f"{number}\n" for number in range(1, 200001))
    whole = bash(sandbox, "seq 1 200000", max_output_length=0)
    assert whole["stdout"] == text


def test_limits_count_characters(sandbox: Sandbox) -> None:
    command = "python3 -c \"print('é'*30000, end='')\""
    whole = bash(sandbox, command, max_output_length=30_000)
    assert (whole["stdout"], whole["stdout_omitted"]) == ("é" * 30_000, None)
    cut = bash(sandbox, command, max_output_length=1000)
    assert cut["stdout_omitted"] == {"offset": 1000, "bytes": 58_000}
    assert cut["stdout"].startswith("é" * 500 + "\n[") and cut["stdout"].endswith("]\n" + "é" * 500)
    part = read(sandbox, cut, offset=1000, max_output_length=10)
    assert (part["stdout"], part["offset"]) == ("é" * 10, 1020)
    # Bytes that are not UTF-8 count as characters, too.
    odd = bash(sandbox, r"printf '\377%.0s' $(seq 200); printf '\342\202\254%.0s' $(seq 200)", max_output_length=100)
    assert odd["stdout"].startswith("�" * 50 + "\n[") and odd["stdout"].endswith("]\n" + "€" * 50)


def test_terminal_url_is_as_the_caller_sees_it(sandbox: Sandbox) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "localhost", "X-Forwarded-Prefix": "/sb/1"}
    url = sandbox.client.get("/v1/shell/terminal-url", headers=headers).json()["data"]
    assert url.startswith("https://localhost/sb/1/terminal?session_id=")


def test_a_flood_is_bounded_and_harms_nobody(small: Sandbox) -> None:
    before = psutil.Process(small.process.pid).memory_info().rss
    flood = bash(small, "head -c 1073741824 /dev/zero | tr '\\0' 'x'; echo end", async_mode=True)
    times = []
    while read(small, flood, offset=2**40)["command"]["status"] == "running":
        start = time.monotonic()
        assert bash(small, "echo fine")["stdout"] == "fine\n"
        times.append(time.monotonic() - start)
    command = read(small, flood)["command"]
    assert command["stdout_bytes"] == 1073741824 + 4
    assert command["dropped"] == command["stdout_bytes"] - 65536
    assert sorted(times)[len(times) // 2] < 0.5
    assert psutil.Process(small.process.pid).memory_info().rss - before < 64 * MIB
    tail = read(small, flood, offset=command["stdout_bytes"] - 10)
    assert tail["stdout"] == "xxxxxx" + "end\n"
    jump = read(small, flood, offset=500_000_000)
    assert jump["offset"] == command["stdout_bytes"] - 32768 + 1000


def test_limits_of_commands_and_sessions(small: Sandbox) -> None:
    started = [bash(small, "sleep 40", async_mode=True) for _ in range(3)]
    refused(small, "/v1/bash/exec", 429, "limit_reached", command="true")
    for command in started:
        small.client.post(f"/v1/bash/sessions/{command['session_id']}/close")
    assert bash(small, "echo again")["stdout"] == "again\n"
    for name in ("one", "two"):
        assert bash(small, "true", session_id=name)["session_id"] == name
    refused(small, "/v1/bash/exec", 429, "limit_reached", command="true", session_id="three")
    assert bash(small, "true")["exit_code"] == 0
    small.client.delete("/v1/shell/sessions")
    assert bash(small, "true", session_id="three")["exit_code"] == 0
    small.client.delete("/v1/shell/sessions/three")


def test_many_commands_are_forgotten(small: Sandbox) -> None:
    first = bash(small, "echo first")
    for _ in range(130):
        bash(small, "true")
    body = {"session_id": first["session_id"]}
    refused(small, "/v1/bash/output", 404, "session_not_found", **body)
    assert len(small.client.get("/v1/bash/sessions").json()["data"]) <= 130


def test_commands_that_misbehave_harm_no_other(sandbox: Sandbox) -> None:
    bad = [
        bash(sandbox, command, async_mode=True, session_id="bad")
        for command in (
            "while :; do :; done",
            "yes",
            "trap '' TERM INT; sleep 60",
            "for i in $(seq 100); do sleep 60 & done; echo forked",
        )
    ]
    results: list[float] = []

    def client() -> None:
        with httpx.Client(base_url=sandbox.url, timeout=30) as own:
            for _ in range(10):
                start = time.monotonic()
                assert own.post("/v1/shell/exec", json={"command": "echo ok"}).json()["data"]["stdout"] == "ok\n"
                results.append(time.monotonic() - start)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40 and sorted(results)[20] < 1
    sandbox.client.post("/v1/bash/sessions/bad/close")
    for command in bad:
        wait_until_gone(command["pid"])


def test_refusals(sandbox: Sandbox) -> None:
    refused(sandbox, "/v1/bash/exec", 422, "invalid_request", command="a\0b")
    refused(sandbox, "/v1/bash/exec", 422, "invalid_request", command="true", env={"A=B": "1"})
    lone = sandbox.client.post("/v1/bash/exec", content=r'{"command": "true", "env": {"A": "\ud800"}}')
    assert lone.status_code == 422
    refused(sandbox, "/v1/bash/exec", 422, "invalid_request")
    refused(sandbox, "/v1/bash/exec", 422, "invalid_request", command="true", session_id="../x")
    refused(sandbox, "/v1/shell/view", 404, "session_not_found", id="nobody")
    sandbox.client.post("/v1/shell/sessions/create", json={"id": "empty"})
    refused(sandbox, "/v1/bash/output", 404, "command_not_found", session_id="empty")
    done = bash(sandbox, "true")
    refused(sandbox, "/v1/bash/output", 404, "command_not_found", session_id=done["session_id"], command_id="nope")
    waiting = bash(sandbox, "sleep 20", timeout=0, session_id="deaf")
    refused(sandbox, "/v1/bash/write", 409, "conflict", session_id=waiting["session_id"], input="x")
    sandbox.client.post("/v1/bash/sessions/deaf/close")


def test_without_a_shell(tmp_path: Path) -> None:
    with running(tmp_path, shell="") as none:  # noqa: S604 - the setting of that name
        refused(none, "/v1/shell/exec", 503, "shell_unavailable", command="true")
    with running(tmp_path, shell="/no/such/bash") as missing:  # noqa: S604
        refused(missing, "/v1/shell/exec", 503, "shell_unavailable", command="true")


def test_a_plain_posix_shell_will_do(tmp_path: Path) -> None:
    with running(tmp_path, shell="/bin/sh") as plain:  # noqa: S604
        bash(plain, "cd /usr; export A='x y'; false", session_id="s")
        answer = bash(plain, 'pwd; echo "$A"; exit 7', session_id="s")
        assert (answer["stdout"], answer["exit_code"]) == ("/usr\nx y\n", 7)


def test_nothing_outlives_the_server(tmp_path: Path) -> None:
    with running(tmp_path) as own:
        pids = [bash(own, "sleep 70", async_mode=True)["pid"]]
        pids.append(int(bash(own, "sleep 71 & echo $!")["stdout"]))
        pids.append(int(bash(own, "(setsid sh -c 'echo $$; exec sleep 72 >/dev/null 2>&1' &); sleep 0.2")["stdout"]))
    for pid in pids:
        wait_until_gone(pid)
    assert not list((tmp_path / ".cache" / "sandbox" / "shell").glob("*"))


# The peer's client


def test_peer_client_bash(peer: PeerClient) -> None:
    done = peer.bash.exec(command="echo hi; echo e >&2")
    assert done.data and (done.data.stdout, done.data.stderr, done.data.exit_code) == ("hi\n", "e\n", 0)
    made = peer.bash.create_session(session_id="peer-bash", exec_dir="/usr")
    assert made.data and made.data.working_dir == "/usr"
    started = peer.bash.exec(session_id="peer-bash", command="read x; echo got $x; sleep 50", async_mode=True)
    assert started.data and started.data.status == "running"
    assert peer.bash.write(session_id="peer-bash", input="it\n").success
    shown = peer.bash.output(session_id="peer-bash", command_id=started.data.command_id, wait=True)
    assert shown.data and shown.data.stdout == "got it\n"
    assert peer.bash.kill(session_id="peer-bash", signal="SIGKILL").success
    listed = peer.bash.sessions()
    assert "peer-bash" in [session.session_id for session in listed.data or []]
    assert peer.bash.close_session("peer-bash").success
    assert peer.bash.output(session_id="peer-bash").success is False


def test_peer_client_shell(peer: PeerClient) -> None:
    made = peer.shell.create_session(id="peer-shell", exec_dir="/usr")
    assert made.data and (made.data.session_id, made.data.working_dir) == ("peer-shell", "/usr")
    done = peer.shell.exec_command(id="peer-shell", command="cd /etc && pwd")
    assert done.data and (done.data.output, done.data.status, done.data.exit_code) == ("/etc\n", "completed", 0)
    started = peer.shell.exec_command(id="peer-shell", command="pwd; read x; echo got $x; sleep 50", async_mode=True)
    assert started.data and started.data.status == "running"
    written = peer.shell.write_to_process(id="peer-shell", input="it", press_enter=True)
    assert written.data and written.data.status == "running"
    waited = peer.shell.wait_for_process(id="peer-shell", seconds=1)
    assert waited.data and waited.data.status == "running"
    shown = peer.shell.view(id="peer-shell")
    assert shown.data and shown.data.output == "/etc\ngot it\n" and len(shown.data.console or []) == 2
    killed = peer.shell.kill_process(id="peer-shell")
    assert killed.data and killed.data.status == "terminated"
    assert peer.shell.update_session(id="peer-shell", no_change_timeout=5).success
    sessions = peer.shell.list_sessions()
    assert sessions.data and "peer-shell" in sessions.data.sessions
    stats = peer.shell.get_session_stats()
    assert stats.data and stats.data.total_sessions >= 1
    url = peer.shell.get_terminal_url()
    assert url.data and "/terminal?session_id=" in url.data
    assert peer.shell.cleanup_session("peer-shell").success
    assert peer.shell.view(id="peer-shell").success is False


@pytest.mark.parametrize("dump", [b"\0\0\0\0\n\0", b"/\0set\0\0\0\0", b"/\0\0\0\0x\0", b"\xff\0set x\0\0\0\0"])
def test_a_state_that_was_written_over_is_none(dump: bytes) -> None:
    assert read_dump(dump) is None


@pytest.mark.parametrize("path", ["/v1/bash/exec", "/v1/shell/exec", "/v1/code/execute"])
def test_a_folder_that_cannot_be_is_told(sandbox: Sandbox, path: str) -> None:
    for folder, code in ((f"/{'n' * 300}", "invalid_request"), ("/" + "\ud800", "file_not_found")):
        body = {"command": "true", "exec_dir": folder, "code": "1", "language": "python", "cwd": folder}
        answer = sandbox.client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.json()["error"]["code"] == code, answer.text


def test_half_a_character_at_the_end_is_not_lost(tmp_path: Path) -> None:
    """Also where the output is as long as an answer may be."""
    spool = Spool(100, tmp_path)
    spool.append(b"a" * 20 + b"\xc3")
    assert spool.excerpt(20, final=False).end == 20, "the rest of it may come"
    assert (spool.excerpt(20, final=True).end, spool.excerpt(21, final=True).text[-1]) == (21, "\ufffd")


@pytest.mark.parametrize("problem", [errno.ENOSYS, errno.EPERM])
def test_the_end_is_noticed_without_pidfd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(problem, "")

    async def run() -> tuple[bytes, int]:
        written = bytearray()
        code = asyncio.get_running_loop().create_future()
        spawned = Spawned(Path("/bin/sh"), ["sh", "-c", "echo hi; sleep 0.1; kill -9 $$"], tmp_path, {b"PATH": b"/bin"})
        process = Process(spawned, lambda _, data: written.extend(data), code.set_result)
        ended = await asyncio.wait_for(code, 10)
        assert process.leader is None, "it is reaped"
        return bytes(written), ended

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert asyncio.run(run()) == (b"hi\n", -9)
