"""A site on loopback for browser tests: forms, dialogs, popups, downloads, frames, slow and failing answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGES = {
    "/": """<title>Shop</title><body>
      <nav><a href="/elsewhere">Menu</a></nav>
      <main><h1>Fruit</h1><p>Fresh <b>apples</b> and <a href="/two">more pears</a>.</p>
        <ul><li>one</li><li>two</li></ul><p style="display:none">secret words</p>
        <p>Long enough to be the main part of this page, which has a menu and a foot around it, as pages have:
        apples are red, green or yellow, and so on, until these are more than two hundred letters in all.</p></main>
      <footer>imprint</footer></body>""",
    "/two": "<title>Two</title><p>The second page",
    "/form": """<title>Form</title><form>
      <label>Name <input id="name" placeholder="your name"></label>
      <textarea id="more"></textarea>
      <select id="size"><option value="s">Small</option><option value="l">Large</option></select>
      <input type="checkbox" id="yes"><input type="file" id="file" multiple>
      <button type="button" id="chooser" onclick="document.getElementById('file').click()">Choose</button>
      <input type="password" id="secret" value="hidden"><button type="button" id="off" disabled>Off</button>
      <button type="button" id="go" onclick="document.title = 'Went'">Go</button></form>
      <script>document.addEventListener('keydown', event => { window.last = event.key + event.ctrlKey; });</script>""",
    "/dialogs": """<title>Dialogs</title>
      <button id="alert" onclick="alert('hello'); document.title = 'Told'">Alert</button>
      <button id="confirm" onclick="document.title = 'Sure: ' + confirm('sure?')">Confirm</button>
      <button id="stay" onclick="window.onbeforeunload = event => { event.preventDefault(); return 'x'; }">Stay</button>
      <button id="later" onclick="setTimeout(() => alert('late'), 300)">Later</button>""",
    "/popup": """<title>Opener</title><button id="open" onclick="window.open('/two')">Open</button>
      <a id="blank" href="/two" target="_blank">blank</a>
      <button id="covered">Covered</button>
      <div style="position:fixed;inset:100px 0 0 0;z-index:2;background:#eee" id="cover"></div>
      <button id="under" style="position:absolute;top:200px">Under</button>""",
    "/console": """<title>Console</title><script>console.log('first', 1); console.warn('second');
      setTimeout(() => { throw new Error('thrown') }, 0);</script>""",
    "/frames": """<title>Frames</title><iframe src="/form" style="margin:50px" width="600" height="300"></iframe>
      <div id="host"></div><script>
      document.getElementById('host').attachShadow({mode: 'open'}).innerHTML =
        '<button onclick="document.title = `Shadow`">In the shadow</button>';</script>""",
    "/long": '<title>Long</title><div style="height:3000px">top</div><p id="end">end</p>',
    "/huge": '<title>Huge</title><div style="height:40000px">top</div>',
    "/files": """<title>Files</title><a id="get" href="/file">get</a>""",
    "/loop": "<title>Loop</title><script>setTimeout(() => { for (;;); }, 50)</script>",
}


@dataclass
class Site:
    url: str
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Paths and headers of requests."""

    def headers(self, path: str) -> dict[str, str]:
        return next(headers for seen, headers in reversed(self.seen) if seen == path)


@contextmanager
def serving() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            site.seen.append((path, {name.lower(): value for name, value in self.headers.items()}))
            body, status, headers = PAGES.get(path, "").encode(), 200, {"Content-Type": "text/html"}
            if path == "/file":
                body = b"the content"
                headers = {"Content-Type": "application/x-thing", "Content-Disposition": 'attachment; filename="a.bin"'}
            elif path == "/slow":
                time.sleep(3)
                body = b"slow"
            elif path == "/api":
                body, headers = b'{"from": "server"}', {"Content-Type": "application/json", "Set-Cookie": "seen=1"}
            elif path == "/empty":
                status = 204
            elif not body:
                status, body = 404, b"<title>Not found</title>"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
