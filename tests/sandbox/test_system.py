"""GET /v1/sandbox, readiness, hooks, observation."""

from __future__ import annotations

import io
import json
import statistics
import tarfile
import time
from pathlib import Path
from typing import Any

import agent_sandbox
import pytest
from starlette.requests import HTTPConnection

from sandbox_api.addresses import public_base, websocket_base
from sandbox_api.health import HEALTH_S, Health
from sandbox_api.services import Services
from sandbox_api.settings import Settings
from tests.support.sandbox import Sandbox, running

PARTS = {
    "shell", "file", "code", "browser", "desktop", "vnc", "cdp", "jupyter", "code-server", "proxy", "mcp", "skills",
    "util", "auth",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _ready(sandbox: Sandbox) -> None:
    deadline = time.monotonic() + 30
    while sandbox.client.get("/ready").status_code != 200:
        assert time.monotonic() < deadline, sandbox.client.get("/ready").text
        time.sleep(0.1)


def overview(sandbox: Sandbox, **headers: str) -> Any:
    answer = sandbox.client.get("/v1/sandbox", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


# What it says


def test_what_it_is_and_what_works(sandbox: Sandbox) -> None:
    sandbox.client.get("/v1/sandbox")
    answer = overview(sandbox)
    data = answer["data"]
    assert answer["success"] and data["ready"]
    assert set(data["capabilities"]) == PARTS
    assert {data["capabilities"][name]["status"] for name in ("shell", "file", "code")} == {"ready"}
    for name in ("desktop", "vnc", "cdp", "browser", "jupyter", "code-server"):
        state = data["capabilities"][name]
        assert state["status"] == "unavailable" and state["detail"], (name, state)
    assert data["workspace"] == answer["workspace"] == str(sandbox.workspace)
    assert data["addresses"]["docs"] == f"{sandbox.url}/v1/docs"
    assert data["versions"]["python"].startswith("3.") and int(data["versions"]["nodejs"].split(".")[0]) >= 20
    assert data["limits"]["max_commands"] == 64 and data["limits"]["read_bytes"] == 32 * 2**20
    assert data["settings"]["port"] == sandbox.port
    details = answer["detail"]
    assert details["system"]["os"] and str(sandbox.port) in details["system"]["occupied_ports"]
    assert details["runtime"]["python"][0]["bin"].endswith("python")
    assert any(tool["name"] == "bash" for group in details["utils"] for tool in group["tools"])


def test_it_is_quick(sandbox: Sandbox) -> None:
    overview(sandbox)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        overview(sandbox)
        times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.05


def test_no_secret_is_told(tmp_path: Path) -> None:
    secrets = {
        "api_keys": "key-one-of-the-tests,key-two-of-the-tests",
        "jwt_secret": "very-secret-secret-of-32-characters",
    }
    with running(tmp_path / "root", auth="1", **secrets) as sandbox:
        assert sandbox.client.get("/v1/sandbox").status_code == 401
        text = sandbox.client.get("/v1/sandbox", headers={"X-API-Key": "key-one-of-the-tests"}).text
        assert json.loads(text)["success"]
        assert not any(secret in text for secret in ("key-one", "key-two", "very-secret"))


def test_text_for_a_model(sandbox: Sandbox) -> None:
    asked = sandbox.client.get("/v1/sandbox", params={"format": "text"})
    accepted = sandbox.client.get("/v1/sandbox", headers={"Accept": "text/plain"})
    assert asked.headers["content-type"] == accepted.headers["content-type"] == "text/plain; charset=utf-8"
    for text in (asked.text, accepted.text):
        assert str(sandbox.workspace) in text
        assert "- shell: ready" in text and "- vnc: unavailable (" in text
        assert f"curl -s {sandbox.url}/v1/bash/exec" in text
        assert "/v1/browser/page/navigate" not in text, "there is no browser here"
    assert overview(sandbox, accept="application/json, text/plain")["success"]
    assert sandbox.client.get("/v1/sandbox", params={"format": "xml"}).status_code == 422


def test_the_examples_in_the_text_work(sandbox: Sandbox) -> None:
    import shlex
    import subprocess

    text = sandbox.client.get("/v1/sandbox", params={"format": "text"}).text
    (sandbox.workspace / "page.html").write_text("<h1>Page</h1>")
    examples = [line.strip() for line in text.splitlines() if line.startswith("  curl") and "/proxy/" not in line]
    assert len(examples) >= 4
    for example in examples:
        answer = subprocess.run(shlex.split(example), capture_output=True, text=True, check=True, timeout=30).stdout
        assert json.loads(answer)["success"], (example, answer)


def test_addresses_follow_the_proxy(sandbox: Sandbox) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "127.0.0.1:8443", "X-Forwarded-Prefix": "/box"}
    assert overview(sandbox, **headers)["data"]["addresses"]["docs"] == "https://127.0.0.1:8443/box/v1/docs"


def connection(address: str, **headers: str) -> HTTPConnection:
    lines = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "inner:1", **headers}.items()
    ]
    scope = {
        "type": "http",
        "scheme": "http",
        "server": ("inner", 1),
        "path": "/",
        "query_string": b"",
        "headers": lines,
    }
    return HTTPConnection({**scope, "client": (address, 5)})


def test_public_base() -> None:
    settings = Settings(trusted_proxies=("10.0.0.1",))
    outer = {"x_forwarded_host": "outer, inner", "x_forwarded_proto": "https", "x_forwarded_prefix": "/a/b/"}
    assert public_base(connection("10.0.0.1", **outer), settings) == "https://outer/a/b"
    assert websocket_base(connection("10.0.0.1", **outer), settings) == "wss://outer/a/b"
    assert public_base(connection("10.0.0.2", **outer), settings) == "http://inner:1"
    odd = {"x_forwarded_host": 'a"><script>', "x_forwarded_prefix": "//evil.example", "x_forwarded_proto": "javascript"}
    assert public_base(connection("10.0.0.1", **odd), settings) == "http://inner:1"


# Ready


def test_alive_and_ready(sandbox: Sandbox) -> None:
    assert sandbox.client.get("/health").json()["data"] == "alive"
    assert sandbox.client.get("/v1/ping").json()["data"] == "pong"
    assert sandbox.client.get("/ready").json()["data"] == {"ready": True, "missing": {}}
    answer = sandbox.client.get("/ready", params={"need": "browser, nonsense"})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_ready" and answer.json()["error"]["retryable"]
    assert set(answer.json()["data"]["missing"]) == {"browser", "nonsense"}


def test_not_ready_without_a_shell(tmp_path: Path) -> None:
    with running(tmp_path / "root", shell="") as sandbox:
        answer = sandbox.client.get("/ready")
        assert answer.status_code == 503 and "shell" in answer.json()["data"]["missing"]
        assert not overview(sandbox)["data"]["ready"]
        assert sandbox.client.get("/health").status_code == 200


class Stuck:
    """A part that does not even let itself be cancelled."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def health(self) -> Health:
        import asyncio

        while True:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
                return Health(status="ready")


class Broken(Stuck):
    async def health(self) -> Health:
        raise OSError("no such socket")


async def test_a_part_that_hangs_or_breaks_has_failed(tmp_path: Path) -> None:
    services = Services(Settings(root=tmp_path))
    services.capabilities.probes |= {"skills": Stuck().health, "util": Broken().health}
    start = time.monotonic()
    found = await services.capabilities.health()
    assert time.monotonic() - start < HEALTH_S + 0.4
    assert found["skills"] == Health(status="failed", detail="no answer within 0.8 s")
    assert found["util"] == Health(status="failed", detail="OSError: no such socket")
    assert all("no answer" not in health.detail for name, health in found.items() if name != "skills")


# Packages


def test_packages(sandbox: Sandbox) -> None:
    python = sandbox.client.get("/v1/sandbox/packages/python").json()["data"]
    assert any(package["name"] == "ipykernel" and package["version"] for package in python)
    module = sandbox.workspace / "node_modules" / "@scope" / "thing"
    module.mkdir(parents=True)
    (module / "package.json").write_text('{"name": "@scope/thing", "version": "1.2.3"}')
    (sandbox.workspace / "node_modules" / "broken").mkdir()
    (sandbox.workspace / "node_modules" / "broken" / "package.json").write_text("{")
    node = sandbox.client.get("/v1/sandbox/packages/nodejs").json()["data"]
    assert {"name": "@scope/thing", "version": "1.2.3"} in node
    assert any(package["name"] == "npm" for package in node)


def test_the_peer_client(sandbox: Sandbox) -> None:
    client = agent_sandbox.Sandbox(base_url=sandbox.url)
    context = client.sandbox.get_context()
    assert context.home_dir and context.version and context.workspace == str(sandbox.workspace)
    assert context.detail.runtime.python[0].ver and context.detail.system.os
    assert client.sandbox.get_python_packages().data and client.sandbox.get_nodejs_packages().success
    hook = client.sandbox.register_hook(name="bye", command="true")
    assert hook.data and hook.data.event == "shutdown"
    listed = client.sandbox.list_hooks(event="shutdown").data
    assert listed and listed[0].name == "bye"
    assert client.sandbox.remove_hook("bye").success
    assert not client.sandbox.remove_hook("bye").success, "what is not there answers success: false, without raising"


# Hooks


def test_hooks_run_at_the_end_in_their_order(tmp_path: Path) -> None:
    with running(tmp_path / "root") as sandbox:
        for name, priority, command in (
            ("last", 200, "echo last >> order"),
            ("first", 1, "echo first $SANDBOX_WORKSPACE >> order; exit 3"),
            ("endless", 100, "trap '' TERM; sleep 60"),
            ("removed", 1, "touch removed"),
        ):
            body = {"name": name, "command": command, "priority": priority, "timeout": 1}
            assert sandbox.client.post("/v1/sandbox/hooks", json=body).json()["success"]
        sandbox.client.delete("/v1/sandbox/hooks/removed")
        listed = sandbox.client.get("/v1/sandbox/hooks").json()["data"]
        assert [hook["name"] for hook in listed] == ["first", "endless", "last"]
        workspace = sandbox.workspace
        start = time.monotonic()
    assert time.monotonic() - start < 9
    assert (workspace / "order").read_text() == f"first {workspace}\nlast\n"
    assert not (workspace / "removed").exists()


@pytest.mark.parametrize(
    "hook",
    [{"name": "a b"}, {"event": "start"}, {"timeout": 1000}, {"timeout": 0}, {"command": ""}, {"name": "x" * 65}],
    ids=str,
)
def test_hooks_that_are_refused(sandbox: Sandbox, hook: dict[str, Any]) -> None:
    answer = sandbox.client.post("/v1/sandbox/hooks", json={"name": "n", "command": "true", **hook})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_too_many_hooks(sandbox: Sandbox) -> None:
    for number in range(32):
        sandbox.client.post("/v1/sandbox/hooks", json={"name": f"h{number}", "command": "true"})
    answer = sandbox.client.post("/v1/sandbox/hooks", json={"name": "more", "command": "true"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "limit_reached")
    assert sandbox.client.post("/v1/sandbox/hooks", json={"name": "h1", "command": "false"}).status_code == 200
    for number in range(32):
        sandbox.client.delete(f"/v1/sandbox/hooks/h{number}")
    assert sandbox.client.delete("/v1/sandbox/hooks/h1").json()["error"]["code"] == "hook_not_found"


# Observation


def test_live_usage(sandbox: Sandbox) -> None:
    sandbox.client.get("/v1/sandbox/observe/live")
    shot = sandbox.client.get("/v1/sandbox/observe/live", params={"top_rows": 3}).json()["data"]
    assert shot["mode"] == "off"
    assert 0 < shot["cgroup"]["mem_current_bytes"] < shot["cgroup"]["mem_max_bytes"]
    assert shot["cgroup"]["cpu_usage_pct"] is not None
    assert shot["disk"][0]["total_bytes"] > shot["disk"][0]["free_bytes"] > 0
    rows = shot["top_processes"]
    assert len(rows) == 3 and rows[0]["rss_bytes"] >= rows[1]["rss_bytes"]
    assert sandbox.client.get("/v1/sandbox/observe/live", params={"top_rows": 10**6}).status_code == 422


def observe(sandbox: Sandbox, action: str, **body: object) -> Any:
    return sandbox.client.post(f"/v1/sandbox/observe/{action}", json=body).json()


def test_capture_and_report(sandbox: Sandbox) -> None:
    wanted = {"mode": "capture", "interval_seconds": 0.2, "duration_seconds": 30, "idempotency_key": "once"}
    session = observe(sandbox, "start", **wanted)["data"]
    assert observe(sandbox, "start", **wanted)["data"]["session_id"] == session["session_id"]
    assert observe(sandbox, "start")["error"]["code"] == "conflict"
    samples = Path(session["runtime_dir"]) / "samples.jsonl"
    deadline = time.monotonic() + 20
    while (not samples.exists() or samples.read_bytes().count(b"\n") < 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    status = sandbox.client.get("/v1/sandbox/observe/status").json()["data"]
    assert status["running"] and status["mode"] == "capture" and status["last_sample_at"]
    assert observe(sandbox, "stop", session_id="absent")["error"]["code"] == "session_not_found"
    assert observe(sandbox, "stop", session_id=session["session_id"])["data"]["stopped"]
    assert not observe(sandbox, "stop")["data"]["stopped"]
    report = observe(sandbox, "export", reason="test", idempotency_key="e")["data"]
    assert observe(sandbox, "export", idempotency_key="e")["data"]["report_id"] == report["report_id"]
    assert report["session_id"] == session["session_id"] and report["size_bytes"] > 0
    route = f"/v1/sandbox/observe/reports/{report['report_id']}"
    answer = sandbox.client.get(route)
    assert answer.headers["content-type"] == "application/gzip"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert set(archive.getnames()) == {"report.json", "now.json", "samples.jsonl"}
        file = archive.extractfile("samples.jsonl")
        assert file
        lines = [json.loads(line) for line in file]
    assert len(lines) >= 2 and lines[0]["top_processes"]
    listed = sandbox.client.get("/v1/sandbox/observe/reports").json()["data"]
    assert [item["report_id"] for item in listed] == [report["report_id"]]
    assert sandbox.client.delete(route).json()["success"]
    for answer in (sandbox.client.get(route), sandbox.client.delete(route)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "report_not_found")


def test_what_cannot_be_observed(sandbox: Sandbox) -> None:
    assert observe(sandbox, "start", mode="off")["error"]["code"] == "invalid_request"
    assert observe(sandbox, "start", interval_seconds=0.001)["error"]["code"] == "invalid_request"
    assert observe(sandbox, "export", session_id="absent")["error"]["code"] == "session_not_found"
    assert sandbox.client.get("/v1/sandbox/observe/reports/..%2f..").status_code == 404


# What is not offered


@pytest.mark.parametrize("operation", ["mappings", "excludes", "upstream", "health", "diagnose"])
def test_the_outbound_proxy_is_not_offered(sandbox: Sandbox, operation: str) -> None:
    answer = sandbox.client.get(f"/v1/proxy/{operation}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_implemented")
