"""JavaScript: /v1/nodejs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from agent_sandbox import Sandbox as Peer

from tests.support.sandbox import Sandbox, running


def execute(sandbox: Sandbox, code: str, **more: Any) -> dict[str, Any]:
    answer = sandbox.client.post("/v1/nodejs/execute", json={"code": code, **more})
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def value(sandbox: Sandbox, code: str, session: str) -> Any:
    data = execute(sandbox, code, session_id=session)
    assert data["status"] == "ok", data
    return data["result"]


@pytest.mark.parametrize(
    "code",
    [
        "const fs = require('fs'); console.log(typeof fs.readFileSync)",
        "import fs from 'fs'; console.log(typeof fs.readFileSync)",
        "import fs from 'node:fs';\nawait null;\nconsole.log(typeof fs.readFileSync)",
        "const fs = require('fs'); await null; console.log(typeof fs.readFileSync)",
        "const fs = await import('fs'); console.log(typeof fs.readFileSync)",
        "setTimeout(() => console.log('function'), 50)",
    ],
)
def test_scripts_and_modules(sandbox: Sandbox, code: str) -> None:
    data = execute(sandbox, code)
    assert (data["status"], data["stdout"], data["stderr"]) == ("ok", "function\n", "")
    assert execute(sandbox, code, files={"a.txt": ""})["stdout"] == "function\n"


def test_streams_and_exit_code(sandbox: Sandbox) -> None:
    data = execute(sandbox, "console.log('out'); console.error('err'); process.exit(3)")
    assert (data["stdout"], data["stderr"], data["exit_code"], data["status"]) == ("out\n", "err\n", 3, "error")


def test_error(sandbox: Sandbox) -> None:
    data = execute(sandbox, "throw new TypeError('bad')")
    assert data["status"] == "error" and data["exit_code"] == 1
    error = data["outputs"][-1]
    assert (error["ename"], error["evalue"]) == ("TypeError", "bad")
    assert any("TypeError: bad" in line for line in data["traceback"])


def test_stdin_and_files(sandbox: Sandbox) -> None:
    code = "import {x} from './lib/x.mjs'; import fs from 'fs'; "
    code += "console.log(x, fs.readFileSync(0, 'utf8'), fs.readFileSync('d.txt', 'utf8'))"
    data = execute(sandbox, code, stdin="in", files={"lib/x.mjs": "export const x = 1", "d.txt": "data"})
    assert data["stdout"] == "1 in data\n"
    assert not list(sandbox.workspace.glob(".node-*"))


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "", "a\\..\\x", "c:x"])
def test_files_stay_inside(sandbox: Sandbox, name: str) -> None:
    answer = sandbox.client.post("/v1/nodejs/execute", json={"code": "1", "files": {name: "x"}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_much_code(sandbox: Sandbox) -> None:
    assert execute(sandbox, f"console.log('{'x' * 300_000}'.length)")["stdout"] == "300000\n"


def test_modules_of_the_folder_are_found(sandbox: Sandbox, tmp_path: Path) -> None:
    package = tmp_path / "node_modules" / "mine"
    package.mkdir(parents=True)
    (package / "package.json").write_text(
        '{"name": "mine", "version": "1.2.3", "exports": {"import": "./i.mjs", "require": "./r.cjs"}}'
    )
    (package / "i.mjs").write_text("export default 'esm'")
    (package / "r.cjs").write_text("module.exports = 'cjs'")
    for more in ({}, {"files": {"a": ""}}):
        assert execute(sandbox, "import m from 'mine'; console.log(m)", cwd=str(tmp_path), **more)["stdout"] == "esm\n"
        assert execute(sandbox, "console.log(require('mine'))", cwd=str(tmp_path), **more)["stdout"] == "cjs\n"
    data = execute(sandbox, "import m from 'mine'; m + require('mine')", cwd=str(tmp_path), session_id="modules")
    assert data["result"] == "'esmcjs'"


def test_a_session_keeps_declarations(sandbox: Sandbox) -> None:
    execute(sandbox, "const a = 1; let b = 2; function f() { return a + b }; class C {}", session_id="keeps")
    assert value(sandbox, "f()", "keeps") == "3"
    assert value(sandbox, "const a = 10; f()", "keeps") == "12"
    assert value(sandbox, "let c = await Promise.resolve(5); c * 2", "keeps") == "10"
    assert value(sandbox, "new C()", "keeps") == "C {}"


def test_a_session_imports(sandbox: Sandbox) -> None:
    code = 'import fs, { readFileSync as read } from "fs"; import * as path from "path";\nimport "os"\n'
    code += 'const m = await import("url"); [typeof fs, typeof read, typeof path.join, typeof m.URL, "import(x)"]'
    data = execute(sandbox, code, session_id="imports")
    assert data["outputs"][-1]["data"]["application/json"] == [
        "object",
        "function",
        "function",
        "function",
        "import(x)",
    ]
    assert value(sandbox, "typeof read", "imports") == "'function'"


def test_a_session_leaves_the_users_text_alone(sandbox: Sandbox) -> None:
    """Words in strings, templates, comments and regular expressions are no imports."""
    texts = [
        "import express from 'express';\nexpress();\n",
        "a\nimport 'b'; const c = await import('c')\n",
        "/* import x from 'y' */ import(",
    ]
    for number, text in enumerate(texts):
        file = sandbox.workspace / f"written-{number}.mjs"
        code = f"require('fs').writeFileSync({json.dumps(str(file))}, `{text}`)"
        assert execute(sandbox, code, session_id="text")["status"] == "ok"
        assert file.read_text() == text
    assert value(sandbox, "const told = 'import(x)'; // import y from 'z'\ntold", "text") == "'import(x)'"
    assert value(sandbox, "/import x from 'y'\\(/.source", "text") == "\"import x from 'y'\\\\(\""
    assert value(sandbox, "({ import(x) { return x } }).import(5)", "text") == "5"


@pytest.mark.parametrize(
    "code",
    [
        "const quote = /\"/; const m = await import('fs'); typeof m.readFileSync",
        "`${typeof (await import('fs')).readFileSync}`",
        "const load = async (name) => (await import(name)).readFileSync; typeof await load('fs')",
        "import /* from 'x' */ { readFileSync /* , y */ as read } from 'fs'; typeof read",
        "import fs, * as all from 'fs'\ntypeof all.default.readFileSync",
        "import {\n  existsSync,\n  readFileSync as read,\n} from 'fs'\ntypeof read",
        "import { 'readFileSync' as read } from 'fs'; typeof read",
        "let one = 1\nimport fs from 'fs'\n;(typeof fs.readFileSync)",
        "import data from './data.json' with { type: 'json' }; data.kind",
        "const data = await import('./data.json', { with: { type: 'json' } }); data.default.kind",
    ],
)
def test_imports_of_every_form(sandbox: Sandbox, code: str) -> None:
    (sandbox.workspace / "data.json").write_text('{"kind": "function"}')
    assert value(sandbox, code, "forms") == "'function'"


def test_lines_of_imports_keep_their_numbers(sandbox: Sandbox) -> None:
    data = execute(sandbox, "import {\n  join,\n} from 'path'\nmissing", session_id="lines")
    assert any(":4:1" in line for line in data["traceback"]), data["traceback"]


def test_without_a_parser_imports_say_what_is_missing(tmp_path: Path) -> None:
    with running(tmp_path, web_assets="") as bare:
        assert value(bare, "`import x from 'y'`", "bare") == "`import x from 'y'`".replace("`", '"')
        for code in ("import fs from 'fs'", "await import('fs')"):
            data = execute(bare, code, session_id="bare")
            assert data["status"] == "error" and "SANDBOX_WEB_ASSETS" in data["note"]
        assert execute(bare, "import fs from 'fs'; console.log(typeof fs)")["stdout"] == "object\n"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("1 + 1", "2"),
        ("const a = [1, 2]; a.map((x) => x * 2)", "[ 2, 4 ]"),
        ("if (true) { 'of a block' }", "'of a block'"),
        ("import os from 'os'; typeof os.cpus", "'function'"),
        ("await Promise.resolve(5)", "5"),
        ("await null\nlet x = 1\nx, x + 1 // that", "2"),
        ("export default 7; await null; 8", None),
        ("const a = 1; await a", "1"),
        ("let y = await 1", None),
        ("console.log(1)", None),
        ("undefined", None),
    ],
)
def test_the_value_of_the_last_expression(sandbox: Sandbox, code: str, result: str | None) -> None:
    for more in ({}, {"files": {"a.txt": ""}}):
        data = execute(sandbox, code, **more)
        assert (data["status"], data["result"], data["stderr"]) == ("ok", result, ""), data
    assert not list((sandbox.root / ".cache" / "sandbox").glob("once-*"))


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("throw new RangeError('far')", 1, "RangeError: far"),
        ("await null; throw new RangeError('far')", 1, "RangeError: far"),
        ("Promise.reject(new RangeError('far')); 1", 1, "RangeError: far"),
        ("setTimeout(() => { throw new RangeError('far') })", 1, "RangeError: far"),
        ("null.x", 1, "TypeError: Cannot read"),
        ("this is wrong", 1, "SyntaxError: "),
        ("await null; this is wrong", 1, "SyntaxError: "),
        ("import x from 'not-there-at-all'", 1, "not-there-at-all"),
        ("throw Object.freeze(new Error('cold'))", 1, "Error: cold"),
        ("await new Promise(() => {})", 13, "unsettled top-level await"),
        ("await null; process.exit()", 0, ""),
    ],
)
def test_ends_of_stateless_code(sandbox: Sandbox, code: str, exit_code: int, said: str) -> None:
    data = execute(sandbox, code)
    assert data["exit_code"] == exit_code and said in data["stderr"], data
    frozen = "freeze" in code  # such an error's stack cannot be shortened
    assert frozen or "once.js" not in data["stderr"], data["stderr"]


def test_stateless_modules_are_modules(sandbox: Sandbox) -> None:
    code = "import fs from 'fs'\nexport const x = 1;\n[typeof this, import.meta.url, typeof module]"
    kind, url, cjs = execute(sandbox, code)["outputs"][-1]["data"]["application/json"]
    assert (kind, cjs) == ("undefined", "undefined") and url.startswith(f"file://{sandbox.workspace}/")
    script = execute(sandbox, "[typeof module.exports, typeof require('fs'), __filename, process.argv.length]")
    assert script["outputs"][-1]["data"]["application/json"] == ["object", "object", "[eval]", 1]


def test_values(sandbox: Sandbox) -> None:
    data = execute(sandbox, "({a: [1, {b: 2}], s: 'x'})", session_id="values")
    assert data["result"] == "{ a: [ 1, { b: 2 } ], s: 'x' }"
    assert data["outputs"][0]["data"]["application/json"] == {"a": [1, {"b": 2}], "s": "x"}
    data = execute(sandbox, "new Map([[1, 2]])", session_id="values")
    assert data["result"] == "Map(1) { 1 => 2 }" and "application/json" not in data["outputs"][0]["data"]
    assert value(sandbox, "10n ** 20n", "values") == "100000000000000000000n"
    assert value(sandbox, "NaN", "values") == "NaN"
    assert value(sandbox, "null", "values") == "null"
    assert value(sandbox, "undefined", "values") is None
    assert value(sandbox, "const o = {}; o.self = o; o", "values") == "<ref *1> { self: [Circular *1] }"
    assert "more characters" in value(sandbox, "'x'.repeat(1e6)", "values")


def test_errors_in_a_session(sandbox: Sandbox) -> None:
    data = execute(sandbox, "console.log('out'); console.error('err'); null.x", session_id="errors")
    assert (data["stdout"], data["stderr"], data["status"]) == ("out\n", "err\n", "error")
    assert data["outputs"][-1]["ename"] == "TypeError"
    assert "driver" not in str(data)
    assert execute(sandbox, "syntax error", session_id="errors")["outputs"][-1]["ename"] == "SyntaxError"
    assert execute(sandbox, "throw 5", session_id="errors")["outputs"][-1]["evalue"] == "5"
    assert (
        execute(sandbox, "await Promise.reject(new RangeError('r'))", session_id="errors")["outputs"][-1]["ename"]
        == "RangeError"
    )
    before = execute(sandbox, "kept = 1; setTimeout(() => { throw new Error('late') }, 10)", session_id="errors")
    data = execute(sandbox, "await new Promise(done => setTimeout(done, 100)); kept", session_id="errors")
    # On a busy machine the first answer may take longer than the timer.
    assert data["result"] == "1" and "late" in before["stderr"] + data["stderr"]


def test_all_output_is_there_before_the_answer(sandbox: Sandbox) -> None:
    for _ in range(5):
        data = execute(sandbox, "for (let i = 0; i < 400; i++) console.log('x'.repeat(99))", session_id="much")
        assert len(data["stdout"]) == 40_000
        # Small pieces fill a pipe before its bytes do, and Node.js then writes the rest later.
        data = execute(sandbox, "for (let i = 0; i < 10000; i++) console.log('y')", session_id="much")
        assert data["stdout"] == "y\n" * 10_000
    # Output without end holds up no answer.
    flood = "flood = setInterval(() => { for (let i = 0; i < 3000; i++) console.log('z') }); 0"
    assert execute(sandbox, flood, session_id="much")["status"] == "ok"
    assert execute(sandbox, "clearInterval(flood); 1", session_id="much")["result"] == "1"


@pytest.mark.parametrize(
    "code",
    [
        # What programs do that keep their output to themselves.
        "const { PassThrough } = require('stream');"
        "Object.defineProperty(process, 'stdout', { value: new PassThrough({ highWaterMark: 1 }) });"
        "process.stdout.write('kept'); 1",
        "process.stdout.cork(); process.stdout.write('kept'); 1",
        "process.stdout.write = () => true; console.log('lost'); 1",
        "process.stdout.end(); 1",
        "process.stdout.destroy(); 1",
        "Object.defineProperty(process, 'stdout', { value: null }); 1",
    ],
)
def test_an_answer_comes_whatever_the_code_does_to_its_output(sandbox: Sandbox, code: str) -> None:
    data = execute(sandbox, code, session_id=f"output-{hash(code)}", timeout=10)
    assert (data["status"], data["result"]) == ("ok", "1"), data
    again = execute(sandbox, "2", session_id=f"output-{hash(code)}", timeout=10)
    assert (again["status"], again["result"]) == ("ok", "2"), again


@pytest.mark.parametrize("code", ["for(;;);", "await new Promise(() => {})"])
def test_timeout_keeps_the_session(sandbox: Sandbox, code: str) -> None:
    execute(sandbox, "kept = 1", session_id="timeouts")
    data = execute(sandbox, code, session_id="timeouts", timeout=0.5)
    assert data["status"] == "timeout" and not data["restarted"]
    assert value(sandbox, "kept", "timeouts") == "1"


def test_ignored_interrupt_ends_the_process(sandbox: Sandbox) -> None:
    data = execute(sandbox, "lost = 1; console.log('before'); await null; for(;;);", session_id="stubborn", timeout=0.5)
    assert data["status"] == "timeout" and data["restarted"] and data["stdout"] == "before\n"
    assert value(sandbox, "typeof lost", "stubborn") == "'undefined'"


def test_a_process_that_ends(sandbox: Sandbox) -> None:
    body = {"code": "console.log('last words'); process.exit(3)", "session_id": "dies"}
    answer = sandbox.client.post("/v1/nodejs/execute", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "kernel_failed")
    assert answer.json()["data"]["stdout"] == "last words\n" and "code 3" in answer.json()["message"]
    assert value(sandbox, "1 + 1", "dies") == "2"


def test_interrupt_from_another_request(sandbox: Sandbox) -> None:
    execute(sandbox, "1", session_id="interrupted")
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(execute(sandbox, "for(;;);", session_id="interrupted")))
    thread.start()
    time.sleep(0.4)
    assert sandbox.client.get("/v1/nodejs/sessions/interrupted").json()["data"]["session"]["state"] == "EXECUTING"
    assert sandbox.client.post("/v1/nodejs/sessions/interrupted/interrupt").json()["data"]["interrupted"] is True
    thread.join(5)
    assert results[0]["status"] == "error" and results[0]["outputs"][-1]["ename"] == "Interrupted"


def test_sessions(sandbox: Sandbox) -> None:
    made = sandbox.client.post("/v1/nodejs/sessions", json={"session_id": "mine", "max_idle_time": 60}).json()["data"]
    assert made["created"] and made["session"]["max_idle_time"] == 60_000
    assert not sandbox.client.post("/v1/nodejs/sessions", json={"session_id": "mine"}).json()["data"]["created"]
    changed = sandbox.client.patch("/v1/nodejs/sessions/mine", json={"cwd": "/tmp", "max_idle_time": 90}).json()["data"]
    assert changed["updated"] and changed["session"]["cwd"] == "/tmp"
    assert value(sandbox, "process.cwd()", "mine") == "'/tmp'"
    assert sandbox.client.delete("/v1/nodejs/sessions/mine").json()["data"] == {"deleted": True}
    for request in (sandbox.client.get, sandbox.client.delete):
        answer = request("/v1/nodejs/sessions/mine")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")


def test_versions(sandbox: Sandbox) -> None:
    info = sandbox.client.get("/v1/nodejs/info").json()["data"]
    assert info["available_versions"] == [info["current_version"]] and info["npm_version"]
    assert execute(sandbox, "console.log(1)", version=info["current_version"])["stdout"] == "1\n"
    answer = sandbox.client.post("/v1/nodejs/execute", json={"code": "1", "version": "node7"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "code_unavailable")


def test_stdin_is_for_stateless_code(sandbox: Sandbox) -> None:
    answer = sandbox.client.post("/v1/nodejs/execute", json={"code": "1", "stateful": True, "stdin": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_unnamed_sessions_do_not_pile_up(sandbox: Sandbox) -> None:
    made = {execute(sandbox, "1", stateful=True)["session_id"] for _ in range(10)}
    sessions = sandbox.client.get("/v1/nodejs/sessions").json()["data"]["sessions"]
    assert len(made) == 10 and len(made & set(sessions)) <= 8


def test_peer_client(sandbox: Sandbox) -> None:
    client = Peer(base_url=sandbox.url)
    answer = client.nodejs.execute_code(
        code="console.log(require('./f.json').a)", files={"f.json": '{"a": 1}'}, timeout=10
    )
    assert answer.success and answer.data and (answer.data.stdout, answer.data.exit_code) == ("1\n", 0)
    assert client.nodejs.get_info().data
    made = client.nodejs.create_session(session_id="peer").data
    assert made and made.created
    answer = client.nodejs.execute_code(code="1 + 1", stateful=True, session_id="peer")
    assert (
        answer.data
        and answer.data.outputs
        and answer.data.outputs[0].data == {"text/plain": "2", "application/json": 2}
    )
    listed = client.nodejs.list_sessions().data
    assert listed and listed.sessions and "peer" in listed.sessions
    got = client.nodejs.get_session("peer").data
    assert got and got.session.session_id == "peer"
    updated = client.nodejs.update_session("peer", max_idle_time=120).data
    assert updated and updated.session.max_idle_time == 120_000
    deleted = client.nodejs.delete_session("peer").data
    assert deleted and deleted.deleted
