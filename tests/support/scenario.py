"""The specification's success criteria, as one visit to a running sandbox: in the container and in the appliance."""

from __future__ import annotations

import base64
import time
from typing import Any

import httpx
from playwright.sync_api import expect, sync_playwright

PATIENCE_S = 90.0
TITLE = "Example Domain"
PAGE = f"<!doctype html><title>{TITLE}</title><h1>{TITLE}</h1><p>This page stands in for a public one.</p>"
PORT = 18765
"""Of a web server that the scenario starts in the sandbox: the sandbox under test needs no network."""


def call(client: httpx.Client, method: str, route: str, /, **body: Any) -> Any:
    """`data` of a successful answer in the one form."""
    response = client.request(method, route, json=body or None)
    answer = response.json()
    assert (response.status_code, answer["success"], answer["error"]) == (200, True, None), answer
    return answer["data"]


def wait_until_ready(client: httpx.Client, *names: str) -> dict[str, Any]:
    """Wait until these capabilities are ready; returns all of them."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        capabilities: dict[str, Any] = call(client, "GET", "/v1/sandbox")["capabilities"]
        late = {name: capabilities[name] for name in names if capabilities[name]["status"] != "ready"}
        if not late:
            return capabilities
        assert time.monotonic() < deadline, late
        time.sleep(0.5)


def endpoints_answer(client: httpx.Client) -> None:
    """SC-001: the four addresses."""
    wait_until_ready(client, "shell", "file", "code", "browser", "vnc", "jupyter", "code-server")
    marks = {"/vnc/index.html": "noVNC", "/jupyter": "Jupyter", "/code-server/": "code-server"}
    for path, mark in marks.items():
        page = client.get(path, follow_redirects=True, headers={"Accept": "text/html"})
        assert page.status_code == 200 and mark.lower() in page.text.lower(), (path, page.text[:500])


def start_page_server(client: httpx.Client, workspace: str) -> str:
    """A web page within the sandbox; returns its address."""
    call(client, "POST", "/v1/file/write", file=f"{workspace}/site/index.html", content=PAGE)
    command = f"python3 -m http.server --bind 127.0.0.1 --directory {workspace}/site {PORT}"
    call(client, "POST", "/v1/bash/exec", command=command, async_mode=True)
    probe = f"until curl -so /dev/null http://127.0.0.1:{PORT}/; do sleep 0.1; done; echo up"
    assert "up" in call(client, "POST", "/v1/shell/exec", command=probe, timeout=20)["stdout"]
    return f"http://127.0.0.1:{PORT}/"


def closed_loop(client: httpx.Client, workspace: str, page: str) -> None:
    """SC-002: page, screenshot, metadata, page text, code, and the file that it made."""
    call(client, "POST", "/v1/browser/navigate", url=page)
    shot = f"{workspace}/screenshots/example.png"
    call(client, "POST", "/v1/browser/screenshot", path=shot)
    assert call(client, "POST", "/v1/file/stat", path=shot)["size"] > 1000
    picture = call(client, "POST", "/v1/file/read", file=shot, encoding="base64")["content"]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    text = call(client, "GET", "/v1/browser/page/text")
    call(client, "POST", "/v1/file/write", file=f"{workspace}/page.txt", content=text)
    code = (
        f"words = open({workspace + '/page.txt'!r}).read().split()\n"
        f"open({workspace + '/output.txt'!r}, 'w').write(' '.join(words[:2]).upper())\n"
        "len(words)"
    )
    ran = call(client, "POST", "/v1/code/execute", language="python", code=code)
    assert ran["status"] == "ok", ran
    assert call(client, "POST", "/v1/file/read", file=f"{workspace}/output.txt")["content"] == TITLE.upper()
    script = f"console.log(require('fs').readFileSync({workspace + '/output.txt'!r}, 'utf8').length)"
    assert call(client, "POST", "/v1/code/execute", language="javascript", code=script)["stdout"].strip() == str(
        len(TITLE)
    )


def shell(client: httpx.Client, workspace: str) -> None:
    """SC-003: output, and the workspace's files."""
    ran = call(client, "POST", "/v1/shell/exec", command="echo test")
    assert (ran["stdout"].strip(), ran["exit_code"]) == ("test", 0)
    listed = call(client, "POST", "/v1/shell/exec", command=f"ls {workspace}")["stdout"].split()
    assert {"output.txt", "screenshots"} <= set(listed)


def files(client: httpx.Client, workspace: str) -> None:
    """SC-004: read, write, list, search, replace, and errors in the one form."""
    path = f"{workspace}/notes.txt"
    call(client, "POST", "/v1/file/write", file=path, content="first line\nsecond line\n")
    call(client, "POST", "/v1/file/replace", file=path, old_str="second", new_str="2nd")
    assert call(client, "POST", "/v1/file/read", file=path)["content"] == "first line\n2nd line\n"
    assert call(client, "POST", "/v1/file/search", file=path, regex="2nd.*")["matches"] == ["2nd line"]
    names = [entry["name"] for entry in call(client, "POST", "/v1/file/list", path=workspace)["files"]]
    assert "notes.txt" in names
    for wrong, code in ((f"{workspace}/missing", "file_not_found"), ("notes.txt", "path_not_absolute")):
        response = client.post("/v1/file/read", json={"file": wrong})
        error = response.json()["error"]
        assert (error["code"], error["trace_id"]) == (code, response.headers["x-trace-id"])
        assert response.status_code >= 400 and error["hint"]


def external_tool(client: httpx.Client, page: str) -> None:
    """SC-005: an external tool takes the address it is told, opens a page of its own and navigates once."""
    address = call(client, "GET", "/v1/browser/info")["cdp_url"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(address)
        tab = browser.contexts[0].new_page()
        tab.goto(page)
        expect(tab).to_have_title(TITLE)
        tab.close()


def artifacts_stay_inside(client: httpx.Client, root: str) -> None:
    """SC-007: what was written at run time lies under SANDBOX_ROOT or the workspace (sockets and X11 aside)."""
    settings = call(client, "GET", "/v1/sandbox")["settings"]
    assert settings["root"] == root
    # The image's own files are root's, so what the sandbox's user owns was written at run time.
    mine = "-type f -user $(id -u) -print"
    away = " -o ".join(f"-path {path}" for path in ("/proc", "/sys", "/dev", "/tmp", "/run"))
    inside = f'-path {root} -o -path "$(realpath {settings["workspace"]})"'
    everywhere = f"find / \\( {away} \\) -prune -o {mine} 2>/dev/null | head -1"
    outside = f"find / \\( {away} -o {inside} \\) -prune -o {mine} 2>/dev/null"
    assert call(client, "POST", "/v1/shell/exec", command=everywhere, timeout=60)["stdout"].startswith("/")
    assert call(client, "POST", "/v1/shell/exec", command=outside, timeout=60)["stdout"] == ""


def run(client: httpx.Client, workspace: str, root: str) -> None:
    """SC-001 to SC-005 and SC-007, in their order. SC-006 is about documents: see tests/sandbox/test_contract.py."""
    endpoints_answer(client)
    page = start_page_server(client, workspace)
    closed_loop(client, workspace, page)
    shell(client, workspace)
    files(client, workspace)
    external_tool(client, page)
    artifacts_stay_inside(client, root)
