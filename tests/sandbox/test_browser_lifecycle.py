"""The browser restarted, crashed, gone and used from elsewhere; each test leaves it running."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import sync_playwright

from tests.support.sandbox import Sandbox, launch, program, running


class Lifecycle:
    """The sandbox, with a supervisor of its browser that tests control."""

    def __init__(self, sandbox: Sandbox, stack: ExitStack) -> None:
        self.sandbox = sandbox
        self._stack = stack
        self._process = sandbox.programs["browser"]

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.sandbox.client.request(method, f"/v1/browser/{path}", **options).json()
        return answer

    def evaluate(self, expression: str) -> dict[str, Any]:
        return self.call("POST", "page/evaluate", json={"expression": expression})

    def start_again(self) -> None:
        """What a supervisor does when the browser has ended."""
        self._process.wait(20)
        log = self.sandbox.root / "browser.log"
        self._process = self._stack.enter_context(program(launch("browser"), self.sandbox.variables, log))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while not self.call("GET", "tabs")["success"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def devtools(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(self.sandbox.variables["SANDBOX_CDP_URL"] + path, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lifecycle]:
    with running(tmp_path_factory.mktemp("life"), "desktop") as started, ExitStack() as stack:
        life = Lifecycle(started, stack)
        life.wait()
        yield life


def test_nothing_heavy_runs_before_the_first_call(life: Lifecycle) -> None:
    """Compares with a server of its own that nobody has called yet."""
    with running(life.sandbox.root / "idle", cdp_url=life.sandbox.variables["SANDBOX_CDP_URL"]) as idle:
        process = psutil.Process(idle.process.pid)
        # Node.js is asked for its version at the start; the browser's driver would stay.
        deadline = time.monotonic() + 10
        while [child for child in _names(process) if "node" in child]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.memory_info().rss < 120 * 2**20
        assert idle.client.get("/v1/browser/tabs").json()["success"]


def _names(process: psutil.Process) -> list[str]:
    """Of all that it has started and that has not ended."""
    names = []
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            names.append(child.name())
    return names


def test_tabs_of_people_and_of_other_clients_are_seen(life: Lifecycle) -> None:
    known = {tab["id"] for tab in life.call("GET", "tabs")["data"]}
    opened = life.devtools("/json/new?data:text/html,<title>Mine</title>", "PUT")["id"]
    deadline = time.monotonic() + 5
    while opened not in {tab["id"] for tab in life.call("GET", "tabs")["data"]}:
        assert time.monotonic() < deadline
    assert opened not in known
    assert life.call("DELETE", f"tabs/{opened}")["success"]
    assert opened not in {tab["id"] for tab in life.call("GET", "tabs")["data"]}


def test_the_address_works_for_other_clients(life: Lifecycle) -> None:
    info = life.call("GET", "info")["data"]
    with sync_playwright() as playwright:
        for address in (info["cdp_url"], info["cdp_http_url"]):
            client = playwright.chromium.connect_over_cdp(address)
            page = client.contexts[0].new_page()
            page.goto("data:text/html,<title>By another</title>")
            assert page.title() == "By another"
            page.close()
            client.close()
    assert life.evaluate("1")["data"] == 1


def test_a_page_that_crashes(life: Lifecycle) -> None:
    tab = life.call("POST", "tabs")["data"]["id"]
    with sync_playwright() as playwright:
        client = playwright.chromium.connect_over_cdp(life.sandbox.variables["SANDBOX_CDP_URL"])
        session = client.new_browser_cdp_session()
        attached = session.send("Target.attachToTarget", {"targetId": tab, "flatten": False})["sessionId"]
        crash = json.dumps({"id": 1, "method": "Page.crash"})
        session.send("Target.sendMessageToTarget", {"sessionId": attached, "message": crash})
        time.sleep(0.5)
        client.close()
    failed = life.evaluate("1")["error"]
    assert failed["code"] == "browser_failed"
    assert "crashed" in failed["message"]
    assert next(one for one in life.call("GET", "tabs")["data"] if one["id"] == tab)["crashed"]
    moved = life.call("POST", "navigate", json={"url": "data:text/html,<title>Again"})
    assert moved["data"]["title"] == "Again"
    assert "a new tab replaces it" in moved["hint"]
    assert tab not in {one["id"] for one in life.call("GET", "tabs")["data"]}


def test_restart(life: Lifecycle) -> None:
    before = life.devtools("/json/version")["webSocketDebuggerUrl"]
    supervisor = threading.Thread(target=life.start_again)
    supervisor.start()
    done = life.call("POST", "restart")
    supervisor.join()
    assert done["success"], done
    assert done["data"]["mode"] == "hard"
    assert life.devtools("/json/version")["webSocketDebuggerUrl"] != before
    assert life.evaluate("1 + 1")["data"] == 2


def test_a_browser_that_dies_while_it_is_used(life: Lifecycle) -> None:
    answers: list[dict[str, Any]] = []
    call = threading.Thread(target=lambda: answers.append(life.evaluate("new Promise(() => {})")))
    call.start()
    time.sleep(1)
    life.kill()
    call.join(10)
    assert answers[0]["error"]["code"] == "browser_unavailable"
    assert answers[0]["error"]["retryable"]
    gone = life.sandbox.client.get("/v1/browser/tabs")
    assert gone.status_code == 503
    assert "does not answer" in gone.json()["message"]
    life.start_again()
    life.wait()
    assert life.evaluate("1 + 1")["data"] == 2


def test_a_dialog_that_was_open_before(life: Lifecycle) -> None:
    assert life.call("POST", "restart", json={"mode": "soft"})["success"]
    opened = life.devtools("/json/new?data:text/html,<script>setTimeout(()=>alert('first'),100)</script>", "PUT")["id"]
    time.sleep(0.7)
    told = life.evaluate("2")
    assert told["data"] == 2
    assert "a dialog or a script without end blocked" in told["hint"]
    life.call("DELETE", f"tabs/{opened}")


def test_downloads_of_people_land_in_the_workspace(life: Lifecycle) -> None:
    life.call("GET", "tabs")
    page = "<a id=a download='by hand.txt' href='data:text/plain,x'>x</a><script>a.click()</script>"
    opened = life.devtools("/json/new?data:text/html," + page.replace(" ", "%20"), "PUT")["id"]
    deadline = time.monotonic() + 5
    while not (life.sandbox.workspace / "downloads" / "by hand.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    life.call("DELETE", f"tabs/{opened}")
    assert Path(life.call("GET", "downloads")["data"][-1]["path"]).read_text() == "x"
