"""Documents as Markdown."""

from __future__ import annotations

import base64
import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import agent_sandbox
import pytest

from tests.support.documents import pdf
from tests.support.sandbox import Sandbox, running

PAGE = "<html><head><title>Report</title></head><body><h1>Spring</h1><p>A <b>good</b> one.</p></body></html>"
ROUTE = "/v1/util/convert_to_markdown"


def error(sandbox: Sandbox, uri: str) -> tuple[int, str]:
    answer = sandbox.client.post(ROUTE, json={"uri": uri})
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server on loopback with a page, a big file, and one that never ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            if self.path == "/slow":
                time.sleep(30)
            elif self.path == "/big":
                for _ in range(64):
                    self.wfile.write(b"x" * 65536)
            else:
                self.wfile.write(PAGE.encode())

        def log_message(self, *_: object) -> None: ...

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """With narrow limits."""
    with running(tmp_path_factory.mktemp("small"), convert_bytes="1000000", convert_timeout_s="3") as started:
        yield started


def test_a_file_by_path_and_by_address(sandbox: Sandbox) -> None:
    page = sandbox.workspace / "a page.html"
    page.write_text(PAGE)
    for uri in (str(page), page.as_uri()):
        answer = sandbox.client.post(ROUTE, json={"uri": uri}).json()
        assert answer["success"], answer
        assert answer["data"].strip() == "# Spring\n\nA **good** one."


def test_a_page_of_the_web(sandbox: Sandbox, web: str) -> None:
    assert "# Spring" in sandbox.client.post(ROUTE, json={"uri": f"{web}/page"}).json()["data"]


def test_inline_data(sandbox: Sandbox) -> None:
    encoded = base64.b64encode(b"a,b\n1,2\n").decode()
    answer = sandbox.client.post(ROUTE, json={"uri": f"data:text/csv;base64,{encoded}"}).json()
    assert "| a | b |" in answer["data"]
    assert "x y" in sandbox.client.post(ROUTE, json={"uri": "data:,x%20y"}).json()["data"]


def test_the_peer_client(sandbox: Sandbox) -> None:
    (sandbox.workspace / "p.html").write_text(PAGE)
    client = agent_sandbox.Sandbox(base_url=sandbox.url)
    assert "# Spring" in str(client.util.convert_to_markdown(uri=str(sandbox.workspace / "p.html")).data)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("notes.txt", (422, "invalid_request")),
        ("ftp://127.0.0.1/x", (422, "invalid_request")),
        ("http://", (422, "invalid_request")),
        ("http://[", (422, "invalid_request")),
        ("data:nothing", (422, "invalid_request")),
        ("data:;base64,!!!", (422, "invalid_request")),
        ("file://elsewhere/etc/passwd", (422, "invalid_request")),
        ("/etc/passwd", (403, "path_outside")),
        ("file:///etc/passwd", (403, "path_outside")),
        ("", (422, "invalid_request")),
        ("\0", (422, "invalid_request")),
    ],
)
def test_what_is_refused(sandbox: Sandbox, uri: str, expected: tuple[int, str]) -> None:
    assert error(sandbox, uri) == expected


def test_missing_folder_link_and_binary(sandbox: Sandbox) -> None:
    workspace = sandbox.workspace
    assert error(sandbox, str(workspace / "missing")) == (404, "file_not_found")
    assert error(sandbox, str(workspace)) == (409, "not_a_file")
    (workspace / "out").symlink_to("/etc/passwd")
    assert error(sandbox, str(workspace / "out")) == (403, "path_outside")
    (workspace / "out").unlink()
    (workspace / "noise").write_bytes(bytes(range(256)) * 40)
    assert error(sandbox, str(workspace / "noise")) == (415, "unsupported_media_type")


def test_office_documents_and_pdf(sandbox: Sandbox) -> None:
    """By the libraries that write them."""
    from openpyxl import Workbook
    from pptx import Presentation

    book, talk = Workbook(), Presentation()
    book.active.append(["city", "Kappel"])
    talk.slides.add_slide(talk.slide_layouts[5]).shapes.title.text = "The harbour of Kappel"
    book.save(sandbox.workspace / "table.xlsx")
    talk.save(str(sandbox.workspace / "talk.pptx"))
    (sandbox.workspace / "page.pdf").write_bytes(pdf("The harbour of Kappel"))
    for name in ("table.xlsx", "talk.pptx", "page.pdf"):
        answer = sandbox.client.post("/v1/util/convert_to_markdown", json={"uri": str(sandbox.workspace / name)})
        assert "Kappel" in str(answer.json()["data"]), answer.text


def test_what_cannot_be_fetched(sandbox: Sandbox, web: str) -> None:
    assert error(sandbox, f"{web}/missing") == (502, "fetch_failed")
    assert error(sandbox, "http://127.0.0.1:9/") == (502, "fetch_failed")


def test_limits(small: Sandbox, web: str, tmp_path: Path) -> None:
    (small.workspace / "big.html").write_bytes(b"x" * 1_000_001)
    assert error(small, str(small.workspace / "big.html")) == (413, "too_large")
    assert error(small, f"{web}/big") == (413, "too_large")
    assert error(small, "data:," + "x" * 1_000_001) == (413, "too_large")
    start = time.monotonic()
    assert error(small, f"{web}/slow") == (504, "conversion_timeout")
    assert time.monotonic() - start < 6


def test_a_pipe_is_not_waited_for(sandbox: Sandbox) -> None:
    pipe = sandbox.workspace / "pipe"
    os.mkfifo(pipe)
    assert error(sandbox, str(pipe)) == (404, "file_not_found")
    pipe.unlink()
