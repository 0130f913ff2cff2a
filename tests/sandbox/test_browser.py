"""The browser by its page-level routes, against a site on loopback."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_sandbox
import httpx
import pytest
from agent_sandbox.core.api_error import ApiError

from sandbox_api.file.pictures import dimensions
from tests.support.sandbox import Sandbox
from tests.support.site import Site, serving


def size_of(picture: bytes) -> tuple[int, int]:
    found = dimensions(io.BytesIO(picture))
    assert found
    return found


class Browser:
    def __init__(self, sandbox: Sandbox, site: Site) -> None:
        self.sandbox = sandbox
        self.site = site

    def post(self, path: str, /, tab: str | None = None, **body: Any) -> dict[str, Any]:
        return self._done(
            self.sandbox.client.post(f"/v1/browser/{path}", json=body, params={"tab": tab} if tab else {})
        )

    def get(self, path: str, /, **query: Any) -> Any:
        return self._done(self.sandbox.client.get(f"/v1/browser/{path}", params=query))["data"]

    def delete(self, path: str, /, body: Any = None, **query: Any) -> dict[str, Any]:
        return self._done(self.sandbox.client.request("DELETE", f"/v1/browser/{path}", json=body, params=query))

    def fails(self, path: str, /, tab: str | None = None, method: str = "POST", **body: Any) -> dict[str, Any]:
        """The error, its HTTP status added."""
        answer = self.sandbox.client.request(
            method, f"/v1/browser/{path}", json=body, params={"tab": tab} if tab else {}
        )
        assert not answer.json()["success"], answer.text
        error: dict[str, Any] = answer.json()["error"]
        return {**error, "status": answer.status_code}

    def open(self, path: str) -> dict[str, Any]:
        return self.post("navigate", url=self.site.url + path)

    def value(self, expression: str, tab: str | None = None) -> Any:
        return self.post("page/evaluate", tab, expression=expression)["data"]

    @staticmethod
    def _done(answer: httpx.Response) -> dict[str, Any]:
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        assert body["success"], body
        return body


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as started:
        yield started


@pytest.fixture
def browser(desktop: Sandbox, site: Site) -> Browser:
    """With one empty tab."""
    browser = Browser(desktop, site)
    for tab in browser.get("tabs")[1:]:
        browser.delete(f"tabs/{tab['id']}")
    browser.post("navigate", url="about:blank")
    return browser


@pytest.fixture
def peer(desktop: Sandbox) -> agent_sandbox.Sandbox:
    return agent_sandbox.Sandbox(base_url=desktop.url, timeout=60)


def test_navigate_and_screenshot_to_a_file(browser: Browser) -> None:
    opened = browser.open("/")
    assert opened["data"]["status"] == 200
    assert opened["data"]["title"] == "Shop"
    path = browser.sandbox.workspace / "screenshots" / "example.png"
    shot = browser.post("screenshot", path=str(path))["data"]
    assert path.stat().st_size == shot["size"] > 1000
    assert size_of(path.read_bytes()) == (shot["width"], shot["height"])
    assert shot["base64"] is None


def test_screenshot_without_a_path_in_other_forms(browser: Browser) -> None:
    browser.open("/long")
    whole = browser.post("screenshot", full_page=True, format="jpeg", quality=40)["data"]
    picture = base64.b64decode(whole["base64"])
    assert size_of(picture) == (whole["width"], whole["height"])
    assert whole["height"] > 3000
    assert whole["format"] == "jpeg"
    part = browser.post("screenshot", selector="#end")["data"]
    assert part["height"] < 100
    answer = browser.sandbox.client.get("/v1/browser/page/screenshot")
    assert answer.headers["content-type"] == "image/png"
    assert size_of(answer.content)[0] > 300


def test_screenshots_are_confined_and_bounded(browser: Browser) -> None:
    assert browser.fails("screenshot", path="/etc/x.png")["code"] == "path_outside"
    assert browser.fails("screenshot", path="x.png")["code"] == "path_not_absolute"
    assert browser.fails("screenshot", path=str(browser.sandbox.workspace))["code"] == "not_a_file"
    browser.open("/huge")
    assert browser.fails("screenshot", full_page=True)["status"] == 413
    assert browser.fails("screenshot", selector="#none", timeout=0.5)["code"] == "element_not_found"


def test_text_markdown_and_html(browser: Browser) -> None:
    browser.open("/")
    text = browser.get("page/text")
    assert "Fresh apples" in text
    assert "secret" not in text
    markdown = browser.get("page/markdown")["markdown"]
    assert "# Fruit" in markdown
    assert f"[more pears]({browser.site.url}/two)" in markdown
    assert "- one" in markdown
    assert not {"Menu", "imprint", "secret"} & set(markdown.split())
    assert browser.get("page/html", outer=True).startswith("<html")
    assert "<h1>Fruit</h1>" in browser.get("page/html")


def test_elements_lead_to_clicks_in_frames_and_shadows(browser: Browser) -> None:
    browser.open("/frames")
    found = {element["text"] or element["name"]: element for element in browser.get("page/elements")}
    assert found["Name"]["role"] == "textbox"
    assert found["Name"]["bounding_box"]["x"] > 50
    assert found["Off"]["disabled"]
    assert not any(element["value"] == "hidden" for element in found.values())
    browser.post("page/click", selector=found["In the shadow"]["selector"])
    assert browser.value("document.title") == "Shadow"
    browser.post("page/click", index=found["Go"]["index"])
    assert browser.value("frames[0].document.title") == "Went"
    assert browser.fails("page/click", index=400)["code"] == "element_not_found"


def test_forms(browser: Browser) -> None:
    browser.open("/form")
    browser.post("page/fill", selector="#name", text="Ada")
    browser.post("page/select_option", selector="#size", label="Large")
    browser.post("page/check", selector="#yes")
    assert browser.value("[name.value, size.value, yes.checked]".replace("name", "document.all.name")) == [
        "Ada", "l", True,
    ]  # fmt: skip
    items = [
        {"selector": "#name", "value": "Grace"},
        {"selector": "#size", "value": "Small"},
        {"selector": "#yes", "value": False},
        {"selector": "#more", "text": "lines"},
    ]
    browser.post("page/fill_form", items=items)
    state = "['name', 'size', 'more'].map(id => document.getElementById(id).value).concat(yes.checked)"
    assert browser.value(state) == ["Grace", "s", "lines", False]
    browser.post("page/type", selector="#more", text=" and more")
    assert browser.value("more.value").endswith("and more") or browser.value("more.value").startswith(" and more")
    browser.post("page/hot_key", keys=["ctrl", "A"])
    assert browser.value("last") == "atrue"
    browser.post("page/press_key", key="esc")
    assert browser.value("last") == "Escapefalse"
    assert browser.fails("page/press_key", key="Nokey")["status"] == 422
    browser.post("page/hot_key", keys=["Control", "+"])
    assert browser.value("last") == "+true"
    assert browser.fails("page/fill", text="x")["code"] == "invalid_request"
    assert browser.fails("page/click", x=1e300, y=1)["code"] == "invalid_request"


def test_scrolling_and_finding(browser: Browser) -> None:
    browser.open("/long")
    browser.post("page/scroll", direction="down", amount=500)
    assert browser.value("scrollY") == 500
    browser.post("page/scroll_to", y=0)
    assert browser.value("scrollY") == 0
    browser.post("page/scroll_to_element", selector="#end")
    assert browser.value("scrollY") > 1000
    [found] = browser.post("page/find_text", keyword="END")["data"]
    assert found["selector"] == "#end"
    assert found["visible"]


def test_uploads_are_confined(browser: Browser) -> None:
    browser.open("/form")
    file = browser.sandbox.workspace / "up.txt"
    file.write_text("content")
    browser.post("page/upload_file", selector="#file", files=[str(file)])
    assert browser.value("file.files[0].text()") == "content"
    other = browser.sandbox.workspace / "other.txt"
    other.write_text("by button")
    browser.post("page/upload_file", selector="#chooser", files=[str(other)])
    assert browser.value("file.files[0].name") == "other.txt"
    assert browser.fails("page/upload_file", selector="#file", files=["/etc/passwd"])["code"] == "path_outside"
    missing = str(browser.sandbox.workspace / "missing")
    assert browser.fails("page/upload_file", selector="#file", files=[missing])["code"] == "file_not_found"


def test_why_an_element_cannot_be_used(browser: Browser) -> None:
    browser.open("/popup")
    covered = browser.fails("page/click", selector="#under", timeout=1)
    assert covered["status"] == 504
    assert "intercepts pointer events" in covered["message"]
    assert browser.fails("page/click", selector="#none", timeout=0.5)["code"] == "element_not_found"
    invalid = browser.fails("page/click", selector="##")
    assert invalid["status"] == 422
    assert "Call log" not in invalid["message"]
    assert "\x1b" not in invalid["message"]
    browser.open("/form")
    assert "not enabled" in browser.fails("page/click", selector="#off", timeout=1)["message"]


def test_navigation_that_fails(browser: Browser) -> None:
    refused = browser.fails("navigate", url="http://127.0.0.1:9999/")
    assert (refused["code"], refused["status"]) == ("navigation_failed", 502)
    assert "CONNECTION_REFUSED" in refused["message"]
    assert browser.fails("navigate", url="http://name.invalid/")["code"] == "navigation_failed"
    slow = browser.fails("navigate", url=browser.site.url + "/slow", timeout=0.5)
    assert (slow["code"], slow["status"], slow["retryable"]) == ("browser_timeout", 504, True)
    assert browser.open("/missing")["data"]["status"] == 404
    assert browser.fails("navigate", url=browser.site.url + "/empty")["code"] == "navigation_failed"


def test_addresses_that_are_opened(browser: Browser) -> None:
    page = browser.sandbox.workspace / "page.html"
    page.write_text("<title>From a file</title>")
    assert browser.post("navigate", url=page.as_uri())["data"]["title"] == "From a file"
    host = browser.site.url.removeprefix("http://")
    assert browser.post("navigate", url=host)["data"]["title"] == "Shop"
    assert browser.post("navigate", url="data:text/html,<title>Data")["data"]["title"] == "Data"
    (browser.sandbox.workspace / "link.html").symlink_to("/etc/passwd")
    for url, code in {
        "file:///etc/passwd": "path_outside",
        (browser.sandbox.workspace / "link.html").as_uri(): "path_outside",
        browser.sandbox.workspace.as_uri(): "not_a_file",
        (browser.sandbox.workspace / "none.html").as_uri(): "file_not_found",
        "chrome://settings": "invalid_request",
        "CHROME://crash": "invalid_request",
        "view-source:http://x": "invalid_request",
        "javascript:alert(1)": "invalid_request",
        "http://": "invalid_request",
        "http://[": "invalid_request",
        " ": "invalid_request",
    }.items():
        assert browser.fails("navigate", url=url)["code"] == code, url
        assert browser.fails("tabs", url=url)["code"] == code, url
    assert len(browser.get("tabs")) == 1


def test_history(browser: Browser) -> None:
    browser.open("/")
    browser.post("page/click", selector="main a")
    assert browser.get("page/text") == "The second page"
    assert browser.post("page/back")["data"]["title"] == "Shop"
    assert browser.post("page/forward")["data"]["title"] == "Two"
    assert "ends here" in browser.post("page/forward")["hint"]
    assert browser.post("page/reload")["data"]["status"] == 200


def test_a_click_waits_for_the_page_it_leads_to(browser: Browser) -> None:
    browser.open("/")
    browser.value("document.querySelector('main a').href = '/slow'")
    assert browser.post("page/click", selector="main a")["data"]["url"].endswith("/slow")
    assert browser.get("page/text") == "slow"


def test_dialogs_block_nothing_and_are_told(browser: Browser) -> None:
    browser.open("/dialogs")
    told = browser.post("page/click", selector="#alert")
    assert told["data"]["title"] == "Told"
    assert "alert 'hello'" in told["hint"]
    assert browser.post("page/click", selector="#confirm")["data"]["title"] == "Sure: false"
    browser.post("page/click", selector="#later")
    time.sleep(0.6)
    # It opened while nobody called: it waits for a person, until somebody calls.
    late = browser.post("page/evaluate", expression="1")
    assert "late" in late["hint"]
    assert late["data"] == 1
    assert browser.value("prompt('x')") is None
    browser.post("page/click", selector="#stay")
    assert "beforeunload" in browser.open("/two")["hint"]


def test_evaluate(browser: Browser) -> None:
    browser.open("/two")
    for expression, value in {
        "document.title": "Two",
        "() => 1 + 1": 2,
        "async () => [await Promise.resolve(1)]": [1],
        "return 5": 5,
        "const a = 1; a + 1": 2,
        "const a = 2; a + 1": 3,
        "await Promise.resolve(4)": 4,
        "undefined": None,
        "null": None,
        "NaN": "NaN",
        "10n ** 3n": "1000n",
        "new Map([['a', new Set([1])]])": {"a": [1]},
        "new Date(0)": "1970-01-01T00:00:00.000Z",
        "({a: undefined, b: [NaN]})": {"b": [None]},
    }.items():
        assert browser.value(expression) == value, expression
    for expression, words in {
        "throw new Error('broken')": "broken",
        "nothing.here": "nothing is not defined",
        "syntax error": "SyntaxError",
        "Promise.reject(new Error('refused'))": "refused",
        "document.body": "DOM node",
        "window": "window",
        "Symbol('x')": "symbol",
        "const c = {}; c.c = c; c": "circular",
        "throw 5": "5",
    }.items():
        error = browser.fails("page/evaluate", expression=expression)
        assert (error["code"], error["status"]) == ("browser_failed", 502), expression
        assert words in error["message"], expression
    for large in ("'x'.repeat(40 * 2 ** 20)", "['x'.repeat(40 * 2 ** 20)]"):
        assert browser.fails("page/evaluate", expression=large)["code"] == "too_large"


def test_code_without_end_is_ended(browser: Browser) -> None:
    browser.open("/two")
    for expression in ("for (;;);", "new Promise(() => {})", "() => { for (;;); }"):
        start = time.monotonic()
        assert browser.fails("page/evaluate", expression=expression, timeout=1)["code"] == "browser_timeout"
        assert time.monotonic() - start < 3
        assert browser.value("document.title") == "Two"


def test_console(browser: Browser) -> None:
    browser.open("/console")
    browser.post("page/wait", type="load")
    time.sleep(0.2)
    kept = browser.get("page/console")
    assert [entry["text"].split("\n")[0] for entry in kept[-3:]] == ["first 1", "second", "Error: thrown"]
    assert [entry["type"] for entry in kept[-3:]] == ["log", "warning", "error"]
    path = browser.sandbox.workspace / "logs" / "console.json"
    saved = browser.post("page/console/export", save_path=str(path), clear=True)["data"]
    assert len(json.loads(path.read_text())) == saved["count"]
    assert browser.get("page/console") == []
    browser.value("for (let i = 0; i < 3000; i++) console.log(i)")
    time.sleep(0.5)
    kept = browser.get("page/console", clear=True)
    assert len(kept) == 1000
    assert kept[-1]["text"] == "2999"


def test_network_log_and_har(browser: Browser) -> None:
    browser.open("/two")
    browser.value("fetch('/api', {headers: {'x-mine': '1'}}).then(answer => answer.text())")
    [entry] = browser.get("network/requests", filter="/api")
    assert (entry["status"], entry["method"], entry["resource_type"]) == (200, "GET", "fetch")
    assert entry["request_headers"]["x-mine"] == "1"
    assert entry["mime_type"] == "application/json"
    assert len(browser.get("network/requests", limit=1)) == 1
    path = browser.sandbox.workspace / "net" / "page.har"
    browser.post("network/export_har", save_path=str(path))
    log = json.loads(path.read_text())["log"]
    assert log["version"] == "1.2"
    assert any(one["request"]["url"].endswith("/api") for one in log["entries"])
    assert browser.fails("network/export_har", save_path="/etc/x.har")["code"] == "path_outside"


def test_routes_and_headers(browser: Browser) -> None:
    browser.open("/two")
    browser.post("network/route", url_pattern="**/api", response={"status": 201, "body": "mocked"})
    assert browser.value("fetch('/api').then(answer => answer.text())") == "mocked"
    browser.post("network/route", url_pattern="**/api", abort=True)
    assert "Failed to fetch" in browser.fails("page/evaluate", expression="fetch('/api')")["message"]
    assert [rule["url_pattern"] for rule in browser.get("network/route")] == ["**/api"]
    browser.delete("network/route", {"url_pattern": "**/api"})
    assert browser.fails("network/route", method="DELETE", url_pattern="**/api")["status"] == 404
    assert "server" in browser.value("fetch('/api').then(answer => answer.text())")
    assert browser.fails("network/route", url_pattern="{", abort=True)["code"] == "invalid_request"
    assert browser.fails("network/headers", headers={"a b": "1"})["code"] == "invalid_request"
    browser.post("network/headers", headers={"X-Everywhere": "1"})
    browser.post("network/scoped_headers", origin=browser.site.url, headers={"X-Here": "2"})
    browser.open("/two")
    sent = browser.site.headers("/two")
    assert (sent["x-everywhere"], sent["x-here"]) == ("1", "2")
    # Both outlive our connection.
    browser.post("restart", mode="soft")
    browser.open("/two")
    assert browser.site.headers("/two")["x-here"] == "2"
    browser.post("network/headers", headers={})
    browser.post("network/scoped_headers", origin=browser.site.url, headers={})
    browser.open("/two")
    assert not {"x-here", "x-everywhere"} & browser.site.headers("/two").keys()
    assert browser.fails("network/scoped_headers", origin="nonsense", headers={})["code"] == "invalid_request"


def test_tabs(browser: Browser) -> None:
    browser.open("/popup")
    told = browser.post("page/click", selector="#open")
    assert "a new tab opened: index 1" in told["hint"]
    first, second = browser.get("tabs")
    assert (first["active"], second["active"]) == (False, True)
    assert second["title"] == "Two"
    assert browser.get("page/text") == "The second page"
    # Another tab can be used where it is: the one in front stays.
    assert browser.value("document.title", tab=first["id"]) == "Opener"
    browser.post("page/click", tab="0", selector="#covered")
    assert browser.get("tabs")[1]["active"]
    activated = browser.sandbox.client.put("/v1/browser/tabs/0/activate").json()["data"]
    assert activated["active"]
    assert browser.value("document.title") == "Opener"
    made = browser.post("tabs", url=browser.site.url + "/form")["data"]
    assert (made["index"], made["title"], made["active"]) == (2, "Form", True)
    # A tab that opens in the background does not become the one that is meant.
    browser.sandbox.client.put("/v1/browser/tabs/0/activate")
    browser.post("page/click", selector="#blank", button="middle")
    assert len(browser.get("tabs")) == 4
    assert browser.value("document.title") == "Opener"
    for _ in range(4):
        browser.delete("tabs/0")
    [last] = browser.get("tabs")
    assert last["url"] == "about:blank"
    assert browser.fails("tabs/7", method="DELETE")["code"] == "tab_not_found"
    assert browser.fails("page/click", tab="7", selector="a")["status"] == 404


def test_cookies_and_state(browser: Browser) -> None:
    browser.delete("cookies")
    browser.open("/two")
    browser.post("cookies", cookies=[{"name": "a", "value": "1"}, {"name": "b", "value": "2", "sameSite": "lax"}])
    assert "a=1" in browser.value("document.cookie")
    browser.value("localStorage.setItem('kept', 'yes')")
    path = str(browser.sandbox.workspace / "states" / "one.json")
    assert browser.post("state/save", path=path)["data"]["cookies"] == 2
    browser.delete("cookies", name="a")
    assert [one["name"] for one in browser.get("cookies", urls=browser.site.url)] == ["b"]
    browser.delete("cookies")
    browser.value("localStorage.clear()")
    browser.post("state/load", path=path)
    assert {one["name"] for one in browser.get("cookies")} == {"a", "b"}
    browser.open("/two")
    assert browser.value("localStorage.getItem('kept')") == "yes"
    assert browser.fails("cookies", cookies=[{"name": "x"}])["code"] == "invalid_request"
    assert browser.fails("cookies", cookies=[{"name": "x", "value": "1", "domain": 5}])["code"] == "invalid_request"
    assert browser.fails("state/save", path="/etc/state.json")["code"] == "path_outside"
    assert browser.fails("state/load", path="/etc/passwd")["code"] == "path_outside"
    nonsense = browser.sandbox.workspace / "nonsense.json"
    nonsense.write_text('{"cookies": [5]}')
    assert browser.fails("state/load", path=str(nonsense))["code"] == "invalid_request"
    browser.delete("cookies")


def test_downloads(browser: Browser) -> None:
    browser.open("/files")
    told = [browser.post("page/click", selector="#get")["hint"] for _ in range(2)]
    assert "a download started: a.bin" in str(told)
    kept = [browser.post("page/wait", type="download")["data"] for _ in range(2)]
    assert sorted(one["name"] for one in kept) == ["a (1).bin", "a.bin"]
    for one in kept:
        path = Path(one["path"])
        assert path.parent == browser.sandbox.workspace / "downloads"
        assert path.read_bytes() == b"the content"
    assert [one["state"] for one in browser.get("downloads")] == ["completed", "completed"]
    copy = browser.sandbox.workspace / "copies" / "mine.bin"
    assert browser.post("navigate", url=browser.site.url + "/file")["data"]["status"] is None
    assert browser.post("page/wait", type="download", save_path=str(copy))["data"]["path"] == str(copy)
    assert copy.read_bytes() == b"the content"
    assert browser.fails("page/wait", type="download", timeout=0.3)["code"] == "browser_timeout"


def test_waits(browser: Browser) -> None:
    browser.open("/two")
    browser.value(
        "setTimeout(() => { document.body.innerHTML = '<i id=late>x</i>'; history.pushState(0, '', '/done') }, 300)"
    )
    browser.post("page/wait", type="selector", selector="#late")
    browser.post("page/wait", type="url", url="**/done")
    browser.post("page/wait", type="function", expression="document.querySelector('i')")
    browser.post("page/wait", type="network_idle")
    browser.post("page/wait", type="timeout", timeout=0.1)
    # A wait takes no turn: what it waits for comes from another call on the same tab.
    thread = threading.Timer(0.5, lambda: browser.value("fetch('/api').then(() => 1)"))
    thread.start()
    answered = browser.post("page/wait", type="response", url_pattern="**/api", timeout=5)["data"]
    thread.join()
    assert answered["status"] == 200
    assert browser.fails("page/wait", type="selector", selector="#never", timeout=0.3)["status"] in (404, 504)
    assert browser.fails("page/wait", type="selector")["code"] == "invalid_request"


def test_a_stuck_page_blocks_no_other(browser: Browser) -> None:
    browser.open("/two")
    stuck = browser.post("tabs", url="about:blank")["data"]["id"]
    browser.post("navigate", stuck, url=browser.site.url + "/loop", wait_until="commit")
    time.sleep(0.3)
    failures: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: failures.append(browser.fails("page/click", stuck, selector="body", timeout=3))
    )
    thread.start()
    start = time.monotonic()
    assert browser.value("document.title", tab="0") == "Two"
    assert len(browser.get("tabs")) == 2
    assert time.monotonic() - start < 2.5
    thread.join()
    assert failures[0]["code"] == "browser_timeout", failures
    # It is in front, and stays what is meant, though it cannot say that it is seen.
    assert browser.fails("page/find_text", keyword="x", timeout=1)["code"] == "browser_timeout"
    # Our connection can be renewed all the same.
    browser.post("restart", mode="soft")
    assert "script without end" in browser.post("page/evaluate", expression="1")["hint"]


def test_calls_on_one_tab_take_turns(browser: Browser) -> None:
    browser.open("/two")
    browser.value("window.log = []")
    code = "(async () => { log.push('in'); await new Promise(r => setTimeout(r, 100)); log.push('out') })()"
    threads = [threading.Thread(target=browser.value, args=(code,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert browser.value("log") == ["in", "out"] * 5


def test_info(browser: Browser) -> None:
    info = browser.get("info")
    assert info["viewport"] == {"width": 1280, "height": 800}
    assert 300 < info["page_viewport"]["height"] < 800
    assert "Chrome" in info["user_agent"]
    assert info["cdp_url"].startswith(f"ws://127.0.0.1:{browser.sandbox.port}/")
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/p"}
    answer = browser.sandbox.client.get("/v1/browser/info", headers=forwarded).json()["data"]
    here = f"127.0.0.1:{browser.sandbox.port}/p/"
    assert answer["vnc_url"].startswith(f"https://{here}vnc/")
    assert answer["cdp_url"].startswith(f"wss://{here}")


def test_config_resizes_the_desktop(browser: Browser) -> None:
    assert browser.post("config", resolution={"width": 1024, "height": 768})["data"] == {"width": 1024, "height": 768}
    try:
        assert browser.get("info")["viewport"]["width"] == 1024
        deadline = time.monotonic() + 5
        while browser.value("innerWidth") > 1024 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert browser.value("innerWidth") <= 1024
    finally:
        browser.post("config", resolution={"width": 1280, "height": 800})
    assert browser.fails("config", resolution={"width": 1, "height": 1})["code"] == "invalid_request"


def test_text_of_pages_that_is_no_unicode(browser: Browser) -> None:
    browser.open("/")
    assert browser.value("document.title = 'half \\ud83d'; '\\ud83d'") == "\ufffd"
    assert browser.value("({'\\ud83d': ['\\ude00', '\\ud83d\\ude00']})") == {"\ufffd": ["\ufffd", "\U0001f600"]}
    browser.value("document.body.textContent = 'text \\ud83d'; console.log('said \\ud83d'); 1")
    assert "half \ufffd" in [tab["title"] for tab in browser.get("tabs")]
    assert "text \ufffd" in str(browser.get("page/text"))
    assert browser.fails("page/evaluate", expression="throw new Error('\\ud83d')")["code"] == "browser_failed"


def test_what_is_not_offered_says_so(browser: Browser) -> None:
    for method, path in (("GET", "captcha/detect"), ("POST", "captcha/wait"), ("GET", "proxy.pac")):
        assert browser.fails(path, method=method)["status"] == 501
    for method, path in (("GET", "mappings"), ("PUT", "upstream"), ("DELETE", "mappings/x"), ("GET", "health")):
        answer = browser.sandbox.client.request(method, f"/v1/proxy/{path}")
        assert answer.json()["error"]["code"] == "not_implemented"
    assert browser.fails("restart", url_blocklist=["*"])["code"] == "not_implemented"


def test_record(browser: Browser, peer: agent_sandbox.Sandbox) -> None:
    browser.open("/")
    path = browser.sandbox.workspace / "videos" / "page.mp4"
    assert peer.browser_page.record(action="once", duration=1, fps=5, save_path=str(path)).success
    assert path.stat().st_size > 1000
    assert browser.fails("page/record", action="pause")["code"] == "not_implemented"
    assert browser.post("page/record", action="status")["data"]["status"] in ("idle", "stopped")


def test_without_a_browser(sandbox: Sandbox) -> None:
    for path in ("info", "tabs", "page/text", "cookies", "downloads"):
        answer = sandbox.client.get(f"/v1/browser/{path}")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "browser_unavailable"
        assert "SANDBOX_CDP_URL" in answer.json()["message"] + answer.json()["hint"]


def test_the_peers_client(browser: Browser, peer: agent_sandbox.Sandbox) -> None:
    page = peer.browser_page
    assert page.navigate(url=browser.site.url + "/form", wait_until="load", timeout=10).data["title"] == "Form"
    assert page.fill(selector="#name", text="peer").success
    assert page.type_text(text="!").success
    assert page.press_key(key="Tab").success
    assert page.hot_key(keys=["Control", "a"]).success
    assert page.hover(selector="#go").success
    assert page.select_option(selector="#size", value="l").success
    assert page.check(selector="#yes").success
    assert page.uncheck(selector="#yes").success
    assert page.fill_form(items=[{"selector": "#more", "value": "text"}]).success
    assert page.click(selector="#go", button="left", click_count=1).success
    assert page.evaluate(expression="document.title").data == "Went"
    assert page.scroll(direction="down", amount=100).success
    assert page.scroll_to(x=0, y=0).success
    assert page.scroll_to_element(selector="#go").success
    assert b"".join(page.screenshot(full_page=True, format="png")).startswith(b"\x89PNG")
    assert "Choose" in str(page.get_text().data)
    assert page.get_html(outer=True).data
    assert page.get_markdown().data["markdown"]
    assert page.get_elements().data[0]["selector"] == "#name"
    assert page.get_console(clear=False).success
    assert page.find_text(keyword="Choose").data
    assert page.wait(type="selector", selector="#go", timeout=5).success
    assert page.reload().success
    assert page.back().success
    assert page.forward().success
    assert peer.browser.get_info().data.user_agent
    assert peer.browser.set_config(resolution={"width": 1280, "height": 800}).success
    assert peer.browser_tabs.create(url=browser.site.url + "/two").data["index"] == 1
    assert peer.browser_tabs.activate(0).success
    assert len(peer.browser_tabs.list().data) == 2
    assert peer.browser_tabs.close(1).success
    assert peer.browser_cookies.set_cookies(cookies=[{"name": "p", "value": "1", "url": browser.site.url}]).success
    assert peer.browser_cookies.get_cookies(urls=browser.site.url).data[-1]["name"] == "p"
    assert peer.browser_cookies.clear_cookies().success
    path = str(browser.sandbox.workspace / "peer.json")
    assert peer.browser_state.save(path=path).success
    assert peer.browser_state.load(path=path).success
    network = peer.browser_network
    assert network.add_route(url_pattern="**/peer", response={"status": 200, "body": "x"}).success
    assert network.remove_route(url_pattern="**/peer").success
    assert network.set_headers(headers={}).success
    assert network.set_scoped_headers(origin=browser.site.url, headers={}).success
    assert network.get_requests(limit=5).data
    assert network.export_har(save_path=str(browser.sandbox.workspace / "peer.har")).success
    # What fails is told in the answer, as the client expects it.
    failed = page.wait(type="selector", selector="#none", timeout=0.3)
    assert not failed.success
    with pytest.raises(ApiError):
        page.press_key(key="Nokey")
    assert peer.browser_captcha.detect().success is False
