"""The tools: by the official MCP client, by plain HTTP, and by the peer's client."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import agent_sandbox
import httpx2
import jsonschema
import mcp_types as types
import pytest
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.support.sandbox import Sandbox, running

TOOLS = {
    "run_command", "command_output", "stop_command", "run_code", "read_file", "write_file", "edit_file", "list_files",
    "search_files", "find_files", "browser_navigate", "browser_read", "browser_elements", "browser_click",
    "browser_type", "browser_screenshot", "browser_evaluate", "browser_tabs", "desktop_screenshot", "sandbox_info",
}  # fmt: skip
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
PAGE = """<!doctype html><title>Form</title><main><h1>Names</h1><p>Type a <a href="#more">name</a>.</p>
<input aria-label="Name"><button onclick="document.title = document.querySelector('input').value">Go</button></main>"""


@asynccontextmanager
async def connected(url: str, **headers: str) -> AsyncIterator[ClientSession]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        yield session


async def use(session: ClientSession, name: str, /, **arguments: Any) -> types.CallToolResult:
    result = await session.call_tool(name, arguments)
    assert isinstance(result, types.CallToolResult)
    assert not result.is_error, result.content
    return result


async def fail(session: ClientSession, name: str, /, **arguments: Any) -> str:
    """The error's code; its message and hint are in the text."""
    result = await session.call_tool(name, arguments)
    assert isinstance(result, types.CallToolResult)
    assert result.is_error
    error = (result.meta or {})["sandbox/error"]
    assert isinstance(error, dict)
    assert all(error[part] in text(result) for part in ("code", "message", "hint"))
    return str(error["code"])


def text(result: types.CallToolResult) -> str:
    first = result.content[0]
    assert isinstance(first, types.TextContent)
    return first.text


def picture(result: types.CallToolResult) -> bytes:
    [image] = [part for part in result.content if isinstance(part, types.ImageContent)]
    data = base64.b64decode(image.data)
    assert data.startswith({"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8"}[image.mime_type])
    return data


# The protocol


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/v1/mcp"])
async def test_a_client_connects_and_lists(sandbox: Sandbox, path: str) -> None:
    async with (
        httpx2.AsyncClient(timeout=60) as http,
        streamable_http_client(sandbox.url + path, http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        greeting = await session.initialize()
        assert greeting.server_info.name == "sandbox"
        assert str(sandbox.workspace) in (greeting.instructions or "")
        assert {tool.name for tool in (await session.list_tools()).tools} == TOOLS


async def test_every_tool_is_described(sandbox: Sandbox) -> None:
    async with connected(sandbox.url + "/mcp") as session:
        tools = (await session.list_tools()).tools
    for tool in tools:
        assert tool.title
        assert tool.description
        assert len(tool.description) > 15
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is not None
        for schema in (tool.input_schema, tool.output_schema):
            assert schema is not None
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
        # Some model servers take no null and no references among the arguments.
        assert "null" not in str(tool.input_schema)
        assert "$ref" not in str(tool.input_schema)
        assert tool.input_schema["additionalProperties"] is False
    reading = {tool.name for tool in tools if tool.annotations and tool.annotations.read_only_hint}
    assert {"read_file", "browser_screenshot", "sandbox_info"} <= reading
    assert not {"run_command", "write_file", "edit_file", "stop_command", "browser_click"} & reading


async def test_two_clients_at_once(sandbox: Sandbox) -> None:
    async with connected(sandbox.url + "/mcp") as first, connected(sandbox.url + "/mcp") as second:
        begin = time.monotonic()
        slow = asyncio.create_task(use(first, "run_command", command="sleep 2; echo slow"))
        answers = await asyncio.gather(*(use(second, "run_command", command=f"echo {n}") for n in range(8)))
        assert time.monotonic() - begin < 2
        assert [text(answer).split("\n")[0] for answer in answers] == [str(n) for n in range(8)]
        assert text(await slow).startswith("slow")


async def test_with_authentication(tmp_path: Path) -> None:
    key = "a-key-for-the-mcp-tests"
    with running(tmp_path, auth="1", api_keys=key) as guarded:
        async with connected(guarded.url + "/mcp", Authorization=f"Bearer {key}") as session:
            assert "[exit code 0]" in text(await use(session, "run_command", command="true"))
            shown = text(await use(session, "run_command", command="env"))
            assert key not in shown
        async with connected(guarded.url + "/mcp", **{"X-API-Key": key}) as session:
            assert len((await session.list_tools()).tools) == len(TOOLS)
        assert guarded.client.post("/mcp", json={}).status_code == 401


def call(sandbox: Sandbox, message: Any = None, path: str = "/mcp", **headers: str) -> Any:
    content = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"} if message is None else message
    return sandbox.client.post(path, json=content, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/json", "application/json, text/event-stream", "application/*;q=0.5"]
)
def test_one_request_is_enough(sandbox: Sandbox, accept: str) -> None:
    """No Accept header that must be right, no session that must be opened and remembered."""
    for headers in ({}, {"Mcp_Session_Id": "of-an-earlier-run"}):
        answer = call(sandbox, Accept=accept, **headers)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["result"]["tools"]) == len(TOOLS)


def test_what_is_refused_says_what_to_do(sandbox: Sandbox) -> None:
    def refusal(answer: Any, status: int) -> str:
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["trace_id"] == answer.headers["x-trace-id"]
        return str(error["hint"])

    assert "application/json" in refusal(call(sandbox, Accept="text/html"), 406)
    assert "application/json" in refusal(call(sandbox, Accept="text/event-stream"), 406)
    assert "Content-Type" in refusal(sandbox.client.post("/mcp", content="{}"), 415)
    assert "MCP client" in refusal(sandbox.client.get("/mcp"), 405)
    assert "MCP client" in refusal(sandbox.client.delete("/mcp", headers={"Mcp-Session-Id": "x"}), 405)


def test_malformed_messages(sandbox: Sandbox) -> None:
    def code(answer: Any) -> int:
        assert answer.status_code < 500
        number: int = answer.json()["error"]["code"]
        return number

    headers = {"Content-Type": "application/json"}
    assert code(sandbox.client.post("/mcp", content="{", headers=headers)) == -32700
    malformed: list[Any] = [[], {}, {"jsonrpc": "1.0"}, {"jsonrpc": "2.0", "id": 1}, "x", 5]
    for message in malformed:
        assert code(call(sandbox, message)) < 0
    assert code(call(sandbox, {"jsonrpc": "2.0", "id": 1, "method": "no/such"})) == -32601
    assert code(call(sandbox, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 5}})) < 0


def test_hosts_that_the_guard_allows_are_served(sandbox: Sandbox) -> None:
    assert call(sandbox, Host="a.localhost:1").status_code == 200
    assert call(sandbox, Origin=sandbox.url).status_code == 200
    assert call(sandbox, Origin="https://evil.test").status_code == 403


def test_the_library_is_imported_when_it_is_needed() -> None:
    """It takes a second and 25 MB."""
    program = "import sys, sandbox_api.app as a; a.create_app(); print({'mcp', 'playwright'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# Commands and code


async def test_commands(sandbox: Sandbox) -> None:
    async with connected(sandbox.url + "/mcp") as session:
        done = await use(session, "run_command", command="pwd; echo wrong >&2; cat; exit 3", stdin="given")
        assert text(done) == f"{sandbox.workspace}\ngiven\n[stderr]\nwrong\n[exit code 3]"
        assert done.structured_content["exit_code"] == 3
        assert done.structured_content["stdout"] == f"{sandbox.workspace}\ngiven"
        await use(session, "run_command", command="mkdir -p sub && cd sub && export WORD=kept", session="mcp-test")
        kept = await use(session, "run_command", command="echo $WORD in $PWD", session="mcp-test")
        assert text(kept).startswith(f"kept in {sandbox.workspace}/sub")
        assert await fail(session, "run_command", command="true", cwd="relative") == "path_not_absolute"
        assert await fail(session, "run_command", command="true", cwd="/no/such") == "file_not_found"


async def test_a_long_command(sandbox: Sandbox) -> None:
    async with connected(sandbox.url + "/mcp") as session:
        begun = await use(session, "run_command", command="echo one; sleep 1; echo two; sleep 100", wait=0.5)
        state = begun.structured_content
        assert state["status"] == "running"
        assert state["command_id"] in text(begun)
        more = await use(
            session, "command_output", command_id=state["command_id"], stdout_offset=state["stdout_offset"], wait=10
        )
        assert more.structured_content["stdout"] == "two\n"
        begin = time.monotonic()
        stopped = await use(session, "stop_command", command_id=state["command_id"])
        assert time.monotonic() - begin < 3
        assert stopped.structured_content["status"] == "killed"
        again = await use(session, "stop_command", command_id=state["command_id"], force=True)
        assert again.structured_content["status"] == "killed"
        assert await fail(session, "command_output", command_id="none") == "command_not_found"


async def test_much_output_is_cut_in_the_middle(sandbox: Sandbox) -> None:
    async with connected(sandbox.url + "/mcp") as session:
        done = await use(session, "run_command", command="seq 1 100000")
        state = done.structured_content
        assert len(text(done)) < 60_000
        assert state["stdout"].startswith("1\n2\n")
        assert state["stdout"].endswith("99999\n100000\n")
        assert state["omitted_bytes"] > 400_000
        rest = await use(session, "command_output", command_id=state["command_id"], stdout_offset=300_000)
        assert rest.structured_content["stdout_offset"] > 300_000


async def test_code(sandbox: Sandbox) -> None:
    async with connected(sandbox.url + "/mcp") as session:
        done = await use(session, "run_code", code="print('out')\n2**10")
        assert text(done) == "out\n[result]\n1024"
        await use(session, "run_code", code="x = 41", session="mcp-code")
        assert "42" in text(await use(session, "run_code", code="x + 1", session="mcp-code"))
        wrong = await use(session, "run_code", code="1 / 0")
        assert wrong.structured_content["status"] == "error"
        assert "ZeroDivisionError" in text(wrong)
        script = await use(session, "run_code", code="console.log([1, 2].length)", language="javascript")
        assert text(script).startswith("2")
        slow = await use(session, "run_code", code="import time; print('begun', flush=True); time.sleep(60)", timeout=1)
        assert slow.structured_content["status"] == "timeout"
        assert "begun" in text(slow)
        drawn = (
            f"from IPython.display import Image, display\nimport base64\ndisplay(Image(base64.b64decode('{PIXEL}')))"
        )
        assert picture(await use(session, "run_code", code=drawn)) == base64.b64decode(PIXEL)
        assert await fail(session, "run_code", code="1", language="cobol") == "invalid_request"


# Files


async def test_files(sandbox: Sandbox) -> None:
    folder = sandbox.workspace / "mcp-files"
    path = str(folder / "notes.txt")
    async with connected(sandbox.url + "/mcp") as session:
        written = await use(session, "write_file", path=path, content="one\ntwo\nthree\n")
        assert written.structured_content == {"path": path, "size": 14, "created": True}
        assert text(await use(session, "read_file", path=path)) == "one\ntwo\nthree"
        part = await use(session, "read_file", path=path, first_line=2, line_count=1)
        assert part.structured_content["content"] == "two"
        assert part.structured_content["more"] is True
        assert "first_line 3" in text(part)
        for count in (1, 2, 2000):
            last = await use(session, "read_file", path=path, first_line=3, line_count=count)
            assert last.structured_content["content"] == "three"
            assert last.structured_content["more"] is False
        beyond = await use(session, "read_file", path=path, first_line=9)
        assert (beyond.structured_content["content"], beyond.structured_content["total_lines"]) == ("", 3)
        edited = await use(session, "edit_file", path=path, old_text="two", new_text="zwei")
        assert "zwei" in text(edited)
        await use(session, "write_file", path=path, content="three\n", append=True)
        assert await fail(session, "edit_file", path=path, old_text="three", new_text="x") == "text_not_unique"
        await use(session, "edit_file", path=path, old_text="three", new_text="drei", replace_all=True)
        assert Path(path).read_text() == "one\nzwei\ndrei\ndrei\n"
        found = await use(session, "search_files", pattern="^d.ei", path=str(folder), include="*.txt")
        assert [(match["line"], match["text"]) for match in found.structured_content["matches"]] == [
            (3, "drei"),
            (4, "drei"),
        ]
        assert text(found).startswith(f"{path}:3: drei")
        assert text(await use(session, "find_files", pattern="note*", path=str(folder))) == path
        listed = await use(session, "list_files", path=str(sandbox.workspace), depth=2)
        assert {str(folder), path} <= {entry["path"] for entry in listed.structured_content["entries"]}


async def test_a_large_file_is_read_in_parts(sandbox: Sandbox) -> None:
    path = sandbox.workspace / "large.txt"
    path.write_text("".join(f"line {number} {'x' * 100}\n" for number in range(1, 2001)))
    seen, first = [], 1
    async with connected(sandbox.url + "/mcp") as session:
        while True:
            part = (await use(session, "read_file", path=str(path), first_line=first)).structured_content
            assert len(part["content"]) <= 50_000
            seen += part["content"].split("\n")
            if not part["more"]:
                break
            first = part["last_line"] + 1
    assert "\n".join(seen) + "\n" == path.read_text()


async def test_a_picture_is_shown(sandbox: Sandbox) -> None:
    path = sandbox.workspace / "pixel.png"
    path.write_bytes(base64.b64decode(PIXEL))
    async with connected(sandbox.url + "/mcp") as session:
        assert picture(await use(session, "read_file", path=str(path))) == path.read_bytes()


async def test_file_errors(sandbox: Sandbox) -> None:
    (sandbox.workspace / "binary.bin").write_bytes(bytes(range(256)))
    inside = str(sandbox.workspace / "missing.txt")
    async with connected(sandbox.url + "/mcp") as session:
        assert await fail(session, "read_file", path="/etc/passwd") == "path_outside"
        assert await fail(session, "write_file", path="/etc/motd", content="x") == "path_outside"
        assert await fail(session, "read_file", path="notes.txt") == "path_not_absolute"
        assert await fail(session, "read_file", path=inside) == "file_not_found"
        assert await fail(session, "read_file", path=str(sandbox.workspace)) == "not_a_file"
        assert await fail(session, "read_file", path=str(sandbox.workspace / "binary.bin")) == "binary_file"
        assert await fail(session, "edit_file", path=inside, old_text="a", new_text="b") == "file_not_found"
        assert await fail(session, "list_files", path=inside) == "file_not_found"
        assert await fail(session, "search_files", pattern="(") == "invalid_request"


async def test_wrong_calls(sandbox: Sandbox) -> None:
    async with connected(sandbox.url + "/mcp") as session:
        with pytest.raises(MCPError, match="no tool"):
            await session.call_tool("no_such_tool", {})
        assert await fail(session, "run_command") == "invalid_request"
        assert await fail(session, "run_command", comand="true") == "invalid_request"
        assert await fail(session, "run_command", command=["true"]) == "invalid_request"
        assert await fail(session, "run_command", command="true", wait=100_000) == "invalid_request"
        assert await fail(session, "browser_navigate", url="https://example.com") == "browser_unavailable"
        assert await fail(session, "desktop_screenshot") == "display_unavailable"
        info = await use(session, "sandbox_info")
        assert info.structured_content["capabilities"]["shell"]["status"] == "ready"
        assert str(sandbox.workspace) in text(info)


# Browser and desktop


@pytest.fixture
def form(desktop: Sandbox) -> Iterator[str]:
    page = desktop.workspace / "form.html"
    page.write_text(PAGE)
    yield page.as_uri()


async def test_the_browser(desktop: Sandbox, form: str) -> None:
    async with connected(desktop.url + "/mcp") as session:
        opened = await use(session, "browser_navigate", url=form)
        assert text(opened).startswith("Form\nfile://")
        assert "# Names" in text(await use(session, "browser_read"))
        assert "Type a name." in text(await use(session, "browser_read", format="text"))
        elements = (await use(session, "browser_elements")).structured_content["elements"]
        places = {(one["role"], one["name"]): one["index"] for one in elements}
        field = next(index for (_, name), index in places.items() if name == "Name")
        button = next(index for (_, name), index in places.items() if name == "Go")
        await use(session, "browser_type", text="Ada", index=field)
        clicked = await use(session, "browser_click", index=button)
        assert clicked.structured_content["title"] == "Ada"
        assert (await use(session, "browser_evaluate", expression="1 + 1")).structured_content["value"] == 2
        await use(session, "browser_type", text="Eve", selector="input", press_enter=True)
        value = await use(session, "browser_evaluate", expression="document.querySelector('input').value")
        assert value.structured_content["value"] == "Eve"
        assert len(picture(await use(session, "browser_screenshot"))) > 1000
        assert len(picture(await use(session, "desktop_screenshot"))) > 1000
        assert await fail(session, "browser_click", selector="#none") in ("element_not_found", "browser_timeout")
        assert await fail(session, "browser_click") == "invalid_request"
        assert await fail(session, "browser_navigate", url="http://127.0.0.1:1/") == "navigation_failed"


async def test_tabs(desktop: Sandbox, form: str) -> None:
    async with connected(desktop.url + "/mcp") as session:
        before = (await use(session, "browser_tabs")).structured_content["tabs"]
        after = (await use(session, "browser_tabs", action="open", url=form)).structured_content["tabs"]
        assert len(after) == len(before) + 1
        new = next(tab for tab in after if tab["id"] not in {old["id"] for old in before})
        assert new["active"]
        switched = await use(session, "browser_tabs", action="switch", tab=before[0]["id"])
        assert [tab["active"] for tab in switched.structured_content["tabs"]].count(True) == 1
        closed = await use(session, "browser_tabs", action="close", tab=new["id"])
        assert len(closed.structured_content["tabs"]) == len(before)
        assert await fail(session, "browser_tabs", action="close") == "invalid_request"
        assert await fail(session, "browser_tabs", action="switch", tab="none") == "tab_not_found"


# By REST


def test_the_peers_client(sandbox: Sandbox) -> None:
    client = agent_sandbox.Sandbox(base_url=sandbox.url)
    assert client.mcp.list_mcp_servers().data == ["sandbox"]
    tools = client.mcp.list_mcp_tools("sandbox").data
    assert {tool.name for tool in tools.tools} == TOOLS
    assert next(tool for tool in tools.tools if tool.name == "run_command").input_schema["required"] == ["command"]
    done = client.mcp.execute_mcp_tool("sandbox", "run_command", request={"command": "echo by rest"}).data
    assert done.content[0].text.startswith("by rest")
    assert done.structured_content["exit_code"] == 0
    assert not done.is_error
    assert client.mcp.execute_mcp_tool("sandbox", "read_file", request={"path": "/etc/passwd"}).data.is_error
    (sandbox.workspace / "rest.png").write_bytes(base64.b64decode(PIXEL))
    shown = client.mcp.execute_mcp_tool("sandbox", "read_file", request={"path": f"{sandbox.workspace}/rest.png"}).data
    assert shown.content[1].mime_type == "image/png"


def test_rest_errors(sandbox: Sandbox) -> None:
    for path in ("/v1/mcp/other/tools", "/v1/mcp/other/tools/run_command", "/v1/mcp/sandbox/tools/none"):
        answer = sandbox.client.request("POST" if path.count("/") == 5 else "GET", path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "tool_not_found"
    missing = sandbox.client.post("/v1/mcp/sandbox/tools/run_command").json()["data"]
    assert missing["isError"] is True
    assert missing["_meta"]["sandbox/error"]["code"] == "invalid_request"
    assert sandbox.client.post("/v1/mcp/sandbox/tools/run_command", json=[1]).status_code == 422


def test_health(sandbox: Sandbox) -> None:
    state = sandbox.client.get("/v1/sandbox").json()["data"]["capabilities"]["mcp"]
    assert state["status"] == "ready"
    assert state["address"] == "/mcp"
    assert str(len(TOOLS)) in state["detail"]
