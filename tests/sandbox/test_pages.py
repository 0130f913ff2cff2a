"""The sandbox's own pages, by HTTP and in a real browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.sandbox import Sandbox, running

KEY = "a-key-for-the-tests"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """Fails the test for errors that the page makes."""
    context = chromium.new_context(viewport={"width": 1200, "height": 760})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if "Content Security Policy" in line.text else None)
    yield opened
    context.close()
    assert errors == []


@pytest.fixture(scope="module")
def prefixed(sandbox: Sandbox) -> Iterator[str]:
    """The sandbox behind a proxy that adds a path prefix."""

    class Proxy(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            if not self.path.startswith("/deep/box/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {"Host": self.headers["Host"], "X-Forwarded-Prefix": "/deep/box"}
            headers |= {name: self.headers[name] for name in ("Content-Type",) if name in self.headers}
            answer = httpx.request(self.command, sandbox.url + self.path[9:], headers=headers, content=body)
            self.send_response(answer.status_code)
            for name in ("content-type", "content-security-policy"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = _forward

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/deep/box/"
    server.shutdown()


@pytest.mark.parametrize("path", ["/", "/v1/docs", "/static/app.js", "/llms.txt", "/robots.txt", "/favicon.ico"])
def test_headers_of_pages(sandbox: Sandbox, path: str) -> None:
    for answer in (sandbox.client.get(path), sandbox.client.head(path)):
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_pages_load_nothing_from_elsewhere(sandbox: Sandbox) -> None:
    for path in ("/", "/v1/docs", "/static/app.js", "/static/app.css", "/static/docs.js"):
        text = sandbox.client.get(path).text
        assert not re.search(r"""(src|href|url|import|fetch)\W{1,3}(https?:)?//""", text), path
        assert not re.search(r"""(src|href)="/""", text), f"{path}: absolute addresses break behind a prefix"


def test_robots_and_the_guide(sandbox: Sandbox) -> None:
    assert sandbox.client.get("/robots.txt").text == "User-agent: *\nDisallow: /\n"
    guide = sandbox.client.get("/llms.txt").text
    assert "- shell: ready" in guide and "- POST /v1/util/convert_to_markdown: A document as Markdown" in guide


def test_unknown_files(sandbox: Sandbox) -> None:
    for path in ("/static/none", "/static/..%2frouter.py", "/v1/docs/assets/package.json", "/v1/docs/assets/..%2fx"):
        answer = sandbox.client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_docs_without_swagger(tmp_path: Path) -> None:
    with running(tmp_path / "root", web_assets="") as sandbox:
        answer = sandbox.client.get("/v1/docs")
        assert answer.status_code == 503 and "Swagger UI is not installed" in answer.text
        assert sandbox.client.get("/v1/docs/assets/swagger-ui.css").status_code == 404


def test_tabs_and_states(sandbox: Sandbox, page: Page) -> None:
    page.goto(f"{sandbox.url}/#status")
    page.get_by_text("The sandbox is ready").wait_for()
    page.get_by_role("tab", name="Browser").click()
    page.get_by_role("heading", name="Browser is not available here").wait_for()
    assert "SANDBOX_" in page.get_by_role("tabpanel").inner_text(), "it says why"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.textContent") == "Status"
    page.keyboard.press("Home")
    assert page.evaluate("location.hash") == "#browser"
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Terminal").get_attribute("aria-selected") == "true"
    page.frame_locator("#panel-terminal iframe").locator("body").wait_for()
    assert page.locator("#tab-files .dot").get_attribute("class") == "dot ready"


def test_files(sandbox: Sandbox, page: Page, tmp_path: Path) -> None:
    folder = sandbox.workspace / "pages <b>"
    folder.mkdir()
    (folder / "note.txt").write_text("first")
    (folder / "noise.bin").write_bytes(bytes(range(256)))
    page.on("dialog", lambda dialog: dialog.accept("made" if dialog.type == "prompt" else None))
    page.goto(f"{sandbox.url}/#files")
    page.get_by_role("button", name="pages <b>/").click()
    page.get_by_role("button", name="note.txt", exact=True).click()
    text = page.get_by_role("textbox", name="Content")
    text.wait_for()
    assert text.input_value() == "first"
    text.fill("second")
    page.keyboard.press("Control+s")
    page.get_by_text("Saved.").wait_for()
    assert (folder / "note.txt").read_text() == "second"
    (folder / "note.txt").write_text("changed by somebody else")
    page.get_by_role("button", name="Save").click()
    page.locator(".files > .problem:not(:empty)").wait_for()
    assert (folder / "note.txt").read_text() == "changed by somebody else"
    page.get_by_role("button", name="noise.bin", exact=True).click()
    page.locator(".preview .note:not(:empty)").wait_for()
    upload = tmp_path / "up ü.txt"
    upload.write_text("from outside")
    page.locator("input[type=file]").set_input_files(upload)
    page.get_by_role("button", name="up ü.txt", exact=True).wait_for()
    assert (folder / "up ü.txt").read_text() == "from outside"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download up ü.txt").click()
    assert Path(download.value.path()).read_text() == "from outside"
    page.get_by_role("button", name="New folder").click()
    page.get_by_role("button", name="made/").click()
    page.get_by_text("Empty.").wait_for()
    page.get_by_role("button", name="pages <b>").click()
    page.get_by_role("button", name="Delete made").click()
    page.get_by_role("button", name="made/").wait_for(state="detached")
    assert not (folder / "made").exists()


def test_behind_a_prefix(sandbox: Sandbox, page: Page, prefixed: str) -> None:
    (sandbox.workspace / "seen.txt").write_text("x")
    page.goto(f"{prefixed}#files")
    page.get_by_role("button", name="seen.txt", exact=True).wait_for()
    page.get_by_role("tab", name="API").click()
    api = page.frame_locator("#panel-api iframe")
    api.get_by_role("heading", name="AI Sandbox").wait_for()
    assert api.locator(".servers select").input_value() == "/deep/box"


def test_api_page_calls_a_route(sandbox: Sandbox, page: Page) -> None:
    page.goto(f"{sandbox.url}/v1/docs")
    page.get_by_role("link", name="sandbox", exact=True).click()
    operation = page.locator(".opblock", has_text="/v1/ping").first
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    operation.locator(".live-responses-table", has_text="pong").wait_for()


def test_signing_in(tmp_path: Path, page: Page) -> None:
    with running(tmp_path / "root", auth="1", api_keys=KEY) as sandbox:
        for path in ("/", "/static/app.js", "/health"):
            assert sandbox.client.get(path).status_code == 200
        page.goto(f"{sandbox.url}/#status")
        field = page.get_by_label("API key or token")
        field.fill("wrong")
        field.press("Enter")
        page.locator("dialog .problem:not(:empty)").wait_for()
        field.fill(KEY)
        field.press("Enter")
        page.get_by_text("The sandbox is").wait_for()
        assert "ticket" not in page.url
        page.get_by_role("tab", name="Files").click()
        page.get_by_text("Empty.").wait_for()
        page.get_by_role("tab", name="API").click()
        page.frame_locator("#panel-api iframe").get_by_role("heading", name="AI Sandbox").wait_for()
        assert page.evaluate("document.cookie") == "", "scripts cannot read it"


def test_a_small_screen(sandbox: Sandbox, page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto(f"{sandbox.url}/#status")
    page.get_by_text("The sandbox is ready").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
