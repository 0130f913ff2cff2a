"""DevTools through the entry: discovery with addresses that hold for the caller, and the websockets themselves."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.sandbox import Sandbox, program, running


def address(desktop: Sandbox, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{desktop.port}"


@pytest.mark.parametrize("path", ["/cdp/json/version", "/cdp/json/version/", "/json/version", "/json/version/"])
def test_version_leads_through_the_entry(desktop: Sandbox, path: str) -> None:
    version = desktop.client.get(path).json()
    assert version["webSocketDebuggerUrl"].startswith(f"{address(desktop, 'ws')}/cdp/devtools/browser/")
    assert version["Browser"].startswith("Chrome/")


@pytest.mark.parametrize("path", ["/cdp/json", "/cdp/json/", "/cdp/json/list", "/json/list", "/json"])
def test_lists_pages(desktop: Sandbox, path: str) -> None:
    for page in desktop.client.get(path).json():
        assert page["webSocketDebuggerUrl"].startswith(f"{address(desktop, 'ws')}/cdp/devtools/")
        assert desktop.variables["SANDBOX_CDP_URL"].removeprefix("http://") not in json.dumps(page)


def test_opens_and_closes_pages(desktop: Sandbox) -> None:
    page = desktop.client.put("/cdp/json/new?about:blank").json()
    assert f"ws=127.0.0.1:{desktop.port}/cdp/devtools/page/{page['id']}" in page["devtoolsFrontendUrl"]
    assert desktop.client.get(f"/cdp/json/activate/{page['id']}").status_code == 200
    assert desktop.client.get(f"/cdp/json/close/{page['id']}").status_code == 200
    assert desktop.client.get("/cdp/json/close/none").status_code == 404


def test_addresses_are_those_of_the_caller(desktop: Sandbox) -> None:
    outside = {"x-forwarded-proto": "https", "x-forwarded-host": "localhost:8443", "x-forwarded-prefix": "/box"}
    version = desktop.client.get("/cdp/json/version", headers=outside).json()
    assert version["webSocketDebuggerUrl"].startswith("wss://localhost:8443/box/cdp/devtools/browser/")
    page = desktop.client.put("/cdp/json/new?about:blank", headers=outside).json()
    desktop.client.get(f"/cdp/json/close/{page['id']}")
    assert page["webSocketDebuggerUrl"].startswith("wss://localhost:8443/box/cdp/devtools/page/")
    assert "wss=localhost:8443/box/cdp/devtools/page/" in page["devtoolsFrontendUrl"]
    by_name = desktop.client.get("/cdp/json/version", headers={"host": f"localhost:{desktop.port}"}).json()
    assert by_name["webSocketDebuggerUrl"].startswith(f"ws://localhost:{desktop.port}/cdp/")


@pytest.mark.parametrize("form", ["/cdp", "/cdp/", "", "ws", "ws by any id"])
def test_playwright_connects_from_outside(desktop: Sandbox, form: str) -> None:
    if form == "ws":
        endpoint = desktop.client.get("/cdp/json/version").json()["webSocketDebuggerUrl"]
    elif form == "ws by any id":
        endpoint = f"{address(desktop, 'ws')}/cdp/devtools/browser/of-yesterday"
    else:
        endpoint = address(desktop) + form
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(endpoint)
        page = browser.contexts[0].new_page()
        page.goto(address(desktop) + "/v1/openapi.json")
        assert "openapi" in page.content()
        page.close()


async def call(socket: Any, number: int, method: str, **parameters: Any) -> Any:
    await socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
    while (answer := json.loads(await socket.recv())).get("id") != number:
        pass
    return answer["result"]


@pytest.fixture
def page_address(desktop: Sandbox) -> Iterator[str]:
    page = desktop.client.put("/cdp/json/new?about:blank").json()
    yield page["webSocketDebuggerUrl"]
    desktop.client.get(f"/cdp/json/close/{page['id']}")


async def test_big_messages_both_ways(page_address: str) -> None:
    size = 20 * 2**20
    async with connect(page_address, max_size=None) as socket:
        got = await call(socket, 1, "Runtime.evaluate", expression=f"'x'.repeat({size})", returnByValue=True)
        assert len(got["result"]["value"]) == size
        sent = await call(socket, 2, "Runtime.evaluate", expression=f"'{'y' * size}'.length", returnByValue=True)
        assert sent["result"]["value"] == size


async def test_many_at_a_time(page_address: str) -> None:
    async def one(number: int) -> None:
        async with connect(page_address) as socket:
            for turn in range(20):
                got = await call(socket, turn, "Runtime.evaluate", expression=f"{number} * 1000 + {turn}")
                assert got["result"]["value"] == number * 1000 + turn

    await asyncio.gather(*(one(number) for number in range(8)))


async def test_unknown_pages_and_foreign_origins_are_refused(desktop: Sandbox, page_address: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{address(desktop, 'ws')}/cdp/devtools/page/none")
    assert json.loads(refused.value.response.body or b"")["error"]["code"] == "proxy_failed"
    with pytest.raises(InvalidStatus) as refused:
        await connect(page_address, origin="http://evil.example")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    # The sandbox's own pages may, though Chromium itself refuses every origin.
    async with connect(page_address, origin=address(desktop)) as socket:  # type: ignore[arg-type]
        assert (await call(socket, 1, "Runtime.evaluate", expression="1"))["result"]["value"] == 1


def test_without_a_browser(sandbox: Sandbox) -> None:
    for path in ("/cdp/json/version", "/json/version", "/cdp/devtools/inspector.html"):
        answer = sandbox.client.get(path)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "browser_unavailable"


async def test_saved_address_survives_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, "desktop") as started:
        log, browser = tmp_path / "again.log", started.programs["browser"]
        saved = await asyncio.to_thread(_version, started)
        async with connect(saved["webSocketDebuggerUrl"]) as socket:
            assert await call(socket, 1, "Browser.getVersion")
            browser.send_signal(signal.SIGTERM)
            with pytest.raises(Exception, match="close|received"):  # noqa: B017, PT011
                while True:
                    await asyncio.wait_for(socket.recv(), 20)
        await asyncio.to_thread(browser.wait, 20)
        gone = await asyncio.to_thread(started.client.get, "/cdp/json/version")
        assert gone.json()["error"]["code"] == "browser_unavailable"
        with program([*map(str, browser.args)], started.variables, log):  # type: ignore[arg-type]
            again = await asyncio.to_thread(_version, started)
            assert again["webSocketDebuggerUrl"] != saved["webSocketDebuggerUrl"]
            async with connect(saved["webSocketDebuggerUrl"]) as socket:
                assert await call(socket, 1, "Browser.getVersion")


def _version(started: Sandbox) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (answer := started.client.get("/cdp/json/version")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    version: dict[str, Any] = answer.json()
    return version
