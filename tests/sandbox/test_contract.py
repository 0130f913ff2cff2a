"""The whole API against its own description, against the peer's, and against hostile input."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import agent_sandbox
import httpx
import pytest
import schemathesis
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, Phase, settings
from starlette.routing import compile_path

from aisandbox.manifest import REPOSITORY
from sandbox_api.app import create_app
from sandbox_api.errors import CODES
from sandbox_api.settings import Settings
from tests.fuzz.sandbox import EXCLUDED, is_as_described, shown
from tests.support.sandbox import Sandbox, running

APP = create_app(Settings(web_assets=None))
SPEC: dict[str, Any] = APP.openapi()
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in SPEC["paths"].items()
    for method, operation in operations.items()
]
NAMES = [f"{method} {path}" for method, path, _ in OPERATIONS]
PEER_FILE = Path(os.environ.get("AGENT_SANDBOX_OPENAPI", REPOSITORY.parent / "shared/reference/aio-openapi.json"))
PEER = json.loads(PEER_FILE.read_text()) if PEER_FILE.is_file() else {"paths": {}, "components": {"schemas": {}}}
PEER_OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in PEER["paths"].items()
    for method, operation in operations.items()
]
# What the peer offers and the sandbox answers with `not_implemented`.
NOT_OFFERED = re.compile(r"/v1/browser/(captcha/.*|proxy\.pac)|/v1/proxy/.*")
DOCUMENT = (REPOSITORY / "docs" / "sandbox.md").read_text()


def plain(path: str) -> str:
    """A route with its parameters' names left out."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def follow(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """What a schema is, behind references and the choice of null."""
    while True:
        if "$ref" in schema:
            schema = components[schema["$ref"].rsplit("/", 1)[1]]
            continue
        real = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
        if len(real) != 1:
            return schema
        schema = real[0]


def body(operation: dict[str, Any], spec: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Content type and schema of an operation's body."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        return kind, follow(content.get("schema", {}), spec["components"]["schemas"])
    return "", {}


def is_error(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert set(content) == {"success", "message", "data", "hint", "error"}
    assert content["success"] is False and content["message"] and content["hint"]
    error = content["error"]
    assert error["code"] == code and error["code"] in CODES
    assert set(error) == {"code", "message", "hint", "retryable", "trace_id"}
    assert error["trace_id"] == answer.headers["x-trace-id"]


# The description


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
def test_every_operation_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation.get("summary"), f"{method} {path} has no summary"
    assert operation.get("tags"), f"{method} {path} has no tag"
    answers = operation["responses"]
    assert any(status.startswith("2") for status in answers)


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_every_described_operation_can_be_reached() -> None:
    """The first matching route answers, so a described route must not be hidden by an earlier one."""
    routes = [
        (compile_path(route.path)[0], route.methods, route.path)
        for route in iter_route_contexts(APP.routes)
        if route.path and route.methods
    ]
    hidden = []
    for method, path, _ in OPERATIONS:
        first = next(route for form, methods, route in routes if method in methods and form.match(path))
        if first != path:
            hidden.append(f"{method} {path} is answered by {first}")
    assert not hidden


def test_the_description_describes_errors() -> None:
    schema = follow(
        SPEC["paths"]["/v1/sandbox"]["get"]["responses"]["default"]["content"]["application/json"]["schema"],
        {**SPEC["components"]["schemas"]},
    )
    assert set(schema["properties"]) == {"success", "message", "data", "hint", "error"}


@pytest.mark.parametrize("name", ["picture.gif", "text.txt", "sound.mp3", "any.bin"])
def test_every_form_of_a_download_is_described(sandbox: Sandbox, name: str) -> None:
    (sandbox.workspace / name).write_bytes(b"x")
    answer = sandbox.client.get("/v1/file/download", params={"path": str(sandbox.workspace / name), "inline": True})
    described = SPEC["paths"]["/v1/file/download"]["get"]["responses"]["200"]["content"]
    assert any(fnmatch(answer.headers["content-type"].split(";")[0], form) for form in described)


# The one form of errors


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/nothing", "/v1/file/nothing", "/v1/sandbox/nothing", "/v1/%00"]
)
def test_unknown_routes(sandbox: Sandbox, path: str) -> None:
    is_error(sandbox.client.get(path), 404, "not_found")


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p, _ in OPERATIONS], ids=NAMES)
def test_wrong_method(sandbox: Sandbox, method: str, path: str) -> None:
    answer = sandbox.client.request("PROPFIND", re.sub(r"\{[^}]*\}", "x", path))
    is_error(answer, 405, "method_not_allowed")


READING = ["/llms.txt", "/v1/openapi.json", "/terminal-server/openapi.json", "/json/version", "/ready?need=browser"]
READING += [path for method, path, _ in OPERATIONS if method == "GET"]


@pytest.mark.parametrize("path", READING)
def test_a_probe_by_head_sees_what_get_sees(sandbox: Sandbox, path: str) -> None:
    address = re.sub(r"\{[^}]*\}", "x", path)
    head, get = sandbox.client.head(address), sandbox.client.get(address)
    assert head.status_code == get.status_code != 405
    assert head.headers["content-type"] == get.headers["content-type"]
    assert not head.content and get.content


def test_a_probe_begins_no_stream(sandbox: Sandbox) -> None:
    watcher = sandbox.client.post("/v1/file/watch", json={"path": str(sandbox.workspace)}).json()["data"]["watcher_id"]
    head = sandbox.client.head(f"/v1/file/watch/{watcher}/events")
    assert (head.status_code, head.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    sandbox.client.delete(f"/v1/file/watch/{watcher}")


JSON_OPERATIONS = [
    (method, path)
    for method, path, operation in OPERATIONS
    if body(operation, SPEC)[0] == "application/json" and operation["requestBody"].get("required")
]


@pytest.mark.parametrize(("method", "path"), JSON_OPERATIONS, ids=lambda value: str(value))
def test_invalid_bodies(sandbox: Sandbox, method: str, path: str) -> None:
    address = re.sub(r"\{[^}]*\}", "x", path)
    headers = {"Content-Type": "application/json"}
    is_error(sandbox.client.request(method, address, content=b"{broken", headers=headers), 400, "invalid_json")
    for wrong in (b"[]", b"7", b"null"):
        is_error(sandbox.client.request(method, address, content=wrong, headers=headers), 422, "invalid_request")


@pytest.fixture(scope="module")
def spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Where a test may begin and leave whatever needs no choice."""
    with running(tmp_path_factory.mktemp("spare")) as sandbox:
        yield sandbox


@pytest.mark.parametrize(("method", "path"), JSON_OPERATIONS, ids=lambda value: str(value))
def test_a_missing_body_is_an_empty_object(spare: Sandbox, method: str, path: str) -> None:
    """The peer's client sends none where nothing is chosen, with and without saying that it is JSON."""
    address = re.sub(r"\{[^}]*\}", "x", path)
    for headers in ({}, {"Content-Type": "application/json"}):
        answer = spare.client.request(method, address, headers=headers)
        if answer.status_code == 422:
            assert answer.json()["message"] == spare.client.request(method, address, json={}).json()["message"]


def test_the_peers_client_sends_no_body(spare: Sandbox) -> None:
    client = agent_sandbox.Sandbox(base_url=spare.url)
    for made in (client.bash, client.shell, client.jupyter, client.nodejs):
        assert made.create_session().data.session_id


def test_an_empty_file_stays_empty(sandbox: Sandbox) -> None:
    file = sandbox.workspace / "empty"
    assert sandbox.client.put("/v1/file/content", params={"path": str(file)}).status_code == 200
    assert file.read_bytes() == b""


def test_a_body_that_is_no_text(sandbox: Sandbox) -> None:
    answer = sandbox.client.post(
        "/v1/bash/exec", content=b'{"command": "\xff\xfe"}', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422) and answer.json()["error"]["code"] in ("invalid_json", "invalid_request")


def test_a_crash(tmp_path: Path) -> None:
    app = create_app(Settings(root=tmp_path))

    async def crash() -> None:
        raise RuntimeError("a defect with a secret in it")

    app.router.routes.clear()
    app.add_api_route("/crash", crash)
    from starlette.testclient import TestClient

    answer = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False).get("/crash")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert answer.json()["error"]["trace_id"] == answer.headers["x-trace-id"]


def test_trace_ids(sandbox: Sandbox) -> None:
    mine = "trace-of-the-caller"
    assert sandbox.client.get("/nothing", headers={"X-Trace-Id": mine}).json()["error"]["trace_id"] == mine
    refused = sandbox.client.get("/nothing", headers={"X-Trace-Id": "a b"}).headers["x-trace-id"]
    assert refused != "a b"
    # The line is written after the answer is sent.
    deadline = time.monotonic() + 10
    while refused not in (log := sandbox.log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert refused in log


def test_the_peer_client_gets_200(sandbox: Sandbox) -> None:
    peer = {"X-Fern-Language": "Python"}
    absent = {"file": str(sandbox.workspace / "absent")}
    answer = sandbox.client.post("/v1/file/read", json=absent, headers=peer)
    assert answer.status_code == 200 and answer.json()["success"] is False
    assert answer.json()["error"]["code"] == "file_not_found"
    assert sandbox.client.post("/v1/file/read", json={}, headers=peer).status_code == 422
    assert sandbox.client.post("/v1/file/read", json=absent).status_code == 404


# The peer's API

peer = pytest.mark.skipif(not PEER["paths"], reason="the peer's description is not here")


@peer
@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [entry for entry in PEER_OPERATIONS if not NOT_OFFERED.fullmatch(entry[1])],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_peers_operations_are_ours(method: str, path: str, operation: dict[str, Any]) -> None:
    found = next((ours for m, p, ours in OPERATIONS if m == method and plain(p) == plain(path)), None)
    assert found, f"there is no {method} {path}"
    kind, theirs = body(operation, PEER)
    our_kind, ours = body(found, SPEC)
    if theirs.get("properties"):
        assert our_kind == kind
        known = ours.get("properties", {})
        missing = set(theirs["properties"]) - set(known)
        assert not missing or "oneOf" in ours or "anyOf" in ours, f"fields that are not known: {missing}"
        demanded = set(ours.get("required", [])) - set(theirs.get("required", []))
        assert not demanded, f"fields that the peer does not demand: {demanded}"
    parameters = {(item["in"], item["name"]) for item in operation.get("parameters", []) if item["in"] == "query"}
    assert parameters <= {(item["in"], item["name"]) for item in found.get("parameters", [])}


@peer
@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, path, _ in PEER_OPERATIONS if NOT_OFFERED.fullmatch(path)],
    ids=lambda value: str(value),
)
def test_what_is_not_offered_says_so(sandbox: Sandbox, method: str, path: str) -> None:
    answer = sandbox.client.request(
        method, re.sub(r"\{[^}]*\}", "x", path), json={} if method in ("POST", "PUT") else None
    )
    is_error(answer, 501, "not_implemented")


# The document


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_is_documented(code: str) -> None:
    row = re.search(rf"^\| `{code}` \| (\d+) \| (yes|no) \|", DOCUMENT, re.MULTILINE)
    assert row, f"docs/sandbox.md lacks {code}"
    assert (int(row[1]), row[2] == "yes") == (CODES[code].status, CODES[code].retryable)


@pytest.mark.parametrize("setting", Settings.documentation(), ids=lambda row: row["name"])
def test_every_setting_is_documented(setting: dict[str, str]) -> None:
    assert f"| `{setting['name']}` |" in DOCUMENT


def test_no_code_is_documented_that_does_not_exist() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \| \d{3} \|", DOCUMENT, re.MULTILINE)
    assert set(listed) == set(CODES)


# Hostile input

FUZZED = [(method, path) for method, path, _ in OPERATIONS if not EXCLUDED.search(path)]
EXAMPLES = int(os.environ.get("SANDBOX_TEST_EXAMPLES", "4"))


@pytest.fixture(scope="module")
def fuzzing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a sandbox of its own: what is sent there ends sessions and deletes files."""
    with running(tmp_path_factory.mktemp("fuzzed")) as sandbox:
        schema = schemathesis.openapi.from_url(f"{sandbox.url}/v1/openapi.json")
        schema.config.base_url = sandbox.url
        yield schema


@pytest.mark.parametrize(("method", "path"), FUZZED, ids=lambda value: str(value))
def test_hostile_input(fuzzing: Any, method: str, path: str) -> None:
    """No answer is a crash, and every answer is as described."""
    from hypothesis import given

    operation = fuzzing[path][method]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def run(case: Any) -> None:
        with shown(case):
            is_as_described(case)

    run()
