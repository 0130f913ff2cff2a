"""The sandbox's API against its own description: no answer is a crash, and every answer is as described."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from sandbox_api.access.guard import OPEN
from sandbox_api.errors import CODES
from tests.fuzz.search import Property, Search
from tests.support.sandbox import Sandbox, running

KEY = "a-key-that-is-long-enough"
UNFIT = {
    "/v1/bash/exec": "runs any text as a command",
    "/v1/shell/exec": "runs any text as a command",
    "/v1/shell/wait": "waits",
    "/v1/bash/output": "waits",
    "/v1/code/execute": "runs any text as code",
    "/v1/jupyter/execute": "runs any text as code",
    "/v1/nodejs/execute": "runs any text as code",
    "/v1/browser/restart": "ends the browser of the other tests",
    "/v1/display/record": "records for as long as it is told",
    "/v1/browser/page/record": "records for as long as it is told",
    "/v1/file/watch/wait": "waits",
    "/v1/file/watch/{watcher_id}/events": "streams without an end",
    "/v1/file/watch/{watcher_id}/poll": "waits",
    "/v1/util/convert_to_markdown": "starts a program a time, and fetches any address",
    "/v1/sandbox/hooks": "runs any text as a command, at the end",
    "/v1/shell/stream": "runs any text as a command",
    "/v1/mcp/{server_name}/tools/{tool_name}": "calls tools, of which some run any text as a command",
}
"""Routes that run what they are given, for as long as they are told, or end what other tests use."""
HARMLESS: dict[str, dict[str, Any]] = {
    "/v1/bash/exec": {"command": "true", "timeout": 1, "hard_timeout": 2},
    "/v1/shell/exec": {"command": "true", "timeout": 1, "hard_timeout": 2},
    "/v1/bash/output": {"wait_timeout": 0.2},
    "/v1/shell/wait": {"seconds": 0.2, "max_wait_seconds": 0.2},
    "/v1/code/execute": {"code": "1", "timeout": 5},
    "/v1/jupyter/execute": {"code": "1", "timeout": 5},
    "/v1/nodejs/execute": {"code": "1", "timeout": 5},
    "/v1/browser/page/wait": {"timeout": 0.2},
}
"""Routes that run something or wait, and what to have them do; the description generates their other fields."""
EXCLUDED = re.compile("|".join(map(re.escape, UNFIT)))
PATHS = ("path", "file", "source", "destination", "cwd", "exec_dir", "work_dir")
SLOW_S = 60.0
"""As long as a kernel may take to start."""
EXAMPLES = 5
"""Inputs of one operation in one round."""


def is_error(answer: Any) -> None:
    """An error has the one form, a code of the registry, and the trace id of its request."""
    error = answer.json()["error"]
    assert set(answer.json()) == {"success", "message", "data", "hint", "error"}
    assert error["code"] in CODES and error["message"] and error["hint"]
    assert answer.headers["x-trace-id"] == [error["trace_id"]]


@contextmanager
def shown(case: Any) -> Iterator[None]:
    """Have a find say which request it was: hypothesis cannot print a case."""
    try:
        yield
    except Exception as find:
        find.add_note(case.as_curl_command())
        raise


def is_as_described(case: Any, **options: Any) -> Any:
    """Send it. Raises when the answer is a crash, or not as the description says."""
    answer = case.call(timeout=60, **options)
    if answer.status_code >= 500:
        # What this host has not (503), what is not offered (501) and what lies behind (502, 504) is no crash.
        assert answer.json()["error"]["code"] != "internal_error", answer.text
    else:
        case.validate_response(
            answer, checks=[not_a_server_error, response_schema_conformance, content_type_conformance]
        )
    return answer


def _places(workspace: Path) -> list[str]:
    """Files that give a route something to work on; written anew, as routes delete them."""
    folder = workspace / "folder"
    folder.mkdir(exist_ok=True)
    for name, content in (
        ("text.txt", b"one\r\ntwo\n" * 20), ("binary", bytes(range(256))), ("picture.gif", b"GIF89a"),
        ("packed.zip", b"PK\3\4"), (os.fsdecode(b"\xff"), b"x"),
    ):  # fmt: skip
        (folder / name).write_bytes(content)
    if not (folder / "loop").is_symlink():
        (folder / "loop").symlink_to("loop")
    found = [str(path) for path in folder.iterdir()]
    return sorted([*found, str(folder), str(workspace), f"{folder}/none", f"{folder}/{'n' * 300}", f"{folder}/\ud800"])


@contextmanager
def _served(name: str) -> Iterator[Sandbox]:
    """A sandbox of its own: what is sent there ends sessions and deletes files, also temporary ones."""
    closed = {"auth": "1", "api_keys": KEY} if name == "sandbox-key" else {}
    former = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="f-") as folder:
        os.environ["TMPDIR"] = str(Path(folder) / "tmp")
        Path(os.environ["TMPDIR"]).mkdir()
        try:
            with running(Path(folder) / "root", **closed) as sandbox:
                yield sandbox
        finally:
            del os.environ["TMPDIR"]
            if former is not None:
                os.environ["TMPDIR"] = former


def _tried(sandbox: Sandbox, schema: Any, method: str, path: str, closed: bool) -> Property:
    operation = schema[path][method]

    def is_answered(case: Any, place: str | None, known: bool) -> None:
        if place and not place.isprintable() and case.media_type != "application/json":
            return  # only JSON can say it
        for part in (case.body, case.query):
            if place and isinstance(part, dict):
                part.update({key: place for key in PATHS if key in part})
        if path in HARMLESS:
            if not isinstance(case.body, dict):
                return
            case.body.update(HARMLESS[path])
        with shown(case):
            answer = is_as_described(case, headers={"X-API-Key": KEY} if closed and known else {})
            if answer.status_code >= 400:
                is_error(answer)
            if closed and not known and path not in OPEN:
                assert answer.status_code == 401 and answer.json()["error"]["code"] == "unauthorized"
            assert sandbox.process.poll() is None, sandbox.log.read_text()[-4000:]

    inputs = {
        "case": operation.as_strategy(),
        "place": st.none() | st.sampled_from(_places(sandbox.workspace)),
        "known": st.booleans() if closed else st.just(True),
    }
    return Property(is_answered, inputs, EXAMPLES, SLOW_S)


def search(name: str, search: Search) -> None:
    """Try every operation that is fit for it, in turn."""
    closed = name == "sandbox-key"
    with _served(name) as sandbox:
        headers = {"X-API-Key": KEY} if closed else {}
        description = sandbox.client.get("/v1/openapi.json", headers=headers).json()
        schema = schemathesis.openapi.from_dict(description)
        schema.config.base_url = sandbox.url
        chosen = [
            (method.upper(), path)
            for path, operations in description["paths"].items()
            for method in operations
            if path in HARMLESS or not EXCLUDED.search(path)
        ]
        search.rounds(tuple(_tried(sandbox, schema, method, path, closed) for method, path in chosen))
