"""Routes that are answered without FastAPI's routing give the answers that FastAPI would give."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_api.app import create_app
from sandbox_api.code.router import direct as code_routes
from sandbox_api.compat.aio.shell_routes import direct as agent_sandbox_routes
from sandbox_api.shell.router import direct as shell_routes
from tests.support.sandbox import Sandbox

BODIES: dict[str, dict[str, Any]] = {
    "/v1/shell/exec": {"command": "echo hi; echo oh >&2; exit 3"},
    "/v1/bash/exec": {"command": "echo hi; echo oh >&2; exit 3"},
    "/v1/code/execute": {"language": "python", "code": "print('hi'); 1 + 1"},
    "/v1/jupyter/execute": {"code": "print('hi'); 1 + 1"},
    "/v1/nodejs/execute": {"code": "console.log('hi'); 1 + 1"},
}
CHANGING = {"session_id", "command_id", "pid", "seconds", "trace_id"}
# FastAPI answers this form of the same content type.
THROUGH_FASTAPI = {"Content-Type": "application/json; charset=utf-8"}


def without_changing(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_changing(inner) for name, inner in value.items() if name not in CHANGING}
    return [without_changing(inner) for inner in value] if isinstance(value, list) else value


def post(sandbox: Sandbox, path: str, content: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    answer = sandbox.client.post(path, content=content, headers={"Content-Type": "application/json", **headers})
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, without_changing(answer.json())


def test_every_direct_route_is_tested_and_documented() -> None:
    routes = shell_routes | agent_sandbox_routes | code_routes
    assert BODIES.keys() == routes.keys() <= create_app().openapi()["paths"].keys()


@pytest.mark.parametrize("path", BODIES)
def test_answers_are_those_of_fastapi(sandbox: Sandbox, path: str) -> None:
    body = sandbox.client.build_request("POST", path, json=BODIES[path]).content
    status, direct = post(sandbox, path, body, {})
    assert (status, direct["success"]) == (200, True)
    assert direct["data"]["stdout"] == "hi\n"
    assert (status, direct) == post(sandbox, path, body, THROUGH_FASTAPI)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", 422), (b"[]", 422), (b"null", 422), (b"{}", 422), (b'{"command": 1, "code": []}', 422),
        (b"{", 400), (b"[" * 100_000, 400),
    ],
)  # fmt: skip
def test_refusals_are_those_of_fastapi(sandbox: Sandbox, path: str, body: bytes, expected: int) -> None:
    status, direct = post(sandbox, path, body, {})
    assert status == expected
    assert (status, direct) == post(sandbox, path, body, THROUGH_FASTAPI)


@pytest.mark.parametrize("path", ["/v1/shell/exec", "/v1/bash/exec"])
def test_errors_of_the_operation_are_those_of_fastapi(sandbox: Sandbox, path: str) -> None:
    body = b'{"command": "true", "exec_dir": "/no/such/folder"}'
    status, direct = post(sandbox, path, body, {})
    assert (status, direct["error"]["code"]) == (404, "file_not_found")
    assert (status, direct) == post(sandbox, path, body, THROUGH_FASTAPI)


def test_events_are_streamed(sandbox: Sandbox) -> None:
    answer = sandbox.client.post("/v1/shell/exec", json={"command": "echo hi"}, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: exit" in answer.text


def test_other_methods_and_paths_are_fastapis(sandbox: Sandbox) -> None:
    assert sandbox.client.get("/v1/shell/exec").status_code == 405
    assert sandbox.client.post("/v1/shell/execute").status_code == 404
