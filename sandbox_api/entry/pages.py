"""Pages for people whose browser asks for something that is not there."""

from __future__ import annotations

from html import escape

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse

from sandbox_api.errors import SandboxError
from sandbox_api.trace import trace_id

REFRESH_S = 2
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>{refresh}
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; display: grid; place-content: center; min-height: 90vh; margin: 2rem; }}
main {{ max-width: 34rem; }}
h1 {{ font-size: 1.4rem; margin: 0 0 .5rem; }}
p {{ margin: .5rem 0; }}
small {{ opacity: .65; }}
</style></head><body><main>
<h1>{title}</h1><p>{message}</p><p>{hint}</p>{waiting}<p><small>{code} · {trace}</small></p>
</main></body></html>
"""


def wants_page(connection: HTTPConnection) -> bool:
    """Whether a person's browser asks."""
    return connection.scope.get("method") in ("GET", "HEAD") and "text/html" in connection.headers.get("accept", "")


def problem(connection: HTTPConnection, error: SandboxError, *, starting: bool) -> HTMLResponse:
    """What is wrong and what to do.

    Args:
        starting: it will come by itself; the page looks again every few seconds.
    """
    page = PAGE.format(
        title="Starting …" if starting else "Not available",
        refresh=f'<meta http-equiv="refresh" content="{REFRESH_S}">' if starting else "",
        waiting="<p>This page looks again by itself.</p>" if starting else "",
        message=escape(error.message[:1].upper() + error.message[1:] + "."),
        hint=escape(error.hint),
        code=escape(error.code),
        trace=escape(trace_id(connection.scope)),
    )
    return HTMLResponse(page, error.status, headers={"cache-control": "no-store"})
