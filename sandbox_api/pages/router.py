"""Routes of the sandbox's own pages. They hold no data: what they show, they ask the API for."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from starlette.responses import Response

from sandbox_api.addresses import public_base
from sandbox_api.errors import SandboxError
from sandbox_api.services import Injected
from sandbox_api.system.text import describe

STATIC = Path(__file__).parent / "static"
FILES = {path.name: path for path in STATIC.iterdir()}
SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Swagger UI writes style attributes into its elements.
DOCS_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
DOCS_HEADERS = {**HEADERS, "Content-Security-Policy": DOCS_POLICY}
NO_SWAGGER = """<!doctype html><html lang="en"><meta charset="utf-8"><title>AI Sandbox API</title>
<link rel="stylesheet" href="../static/app.css"><main class="message"><h1>Swagger UI is not installed</h1>
<p>SANDBOX_WEB_ASSETS names no folder with swagger-ui-dist in it.</p>
<p>The routes are in <a href="openapi.json">openapi.json</a> and, in words, in <a href="../llms.txt">llms.txt</a>.</p>
</main></html>"""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def dashboard() -> FileResponse:
    return FileResponse(FILES["index.html"], headers=HEADERS)


@router.get("/static/{name}")
async def static(name: str) -> FileResponse:
    if name not in FILES:
        raise SandboxError("not_found", f"there is no static/{name}")
    return FileResponse(FILES[name], headers=HEADERS)


@router.get("/favicon.ico")
async def favicon() -> FileResponse:
    return FileResponse(FILES["icon.svg"], headers=HEADERS)


@router.get("/robots.txt")
async def robots() -> PlainTextResponse:
    return PlainTextResponse("User-agent: *\nDisallow: /\n", headers=HEADERS)


@router.get("/v1/docs")
async def docs(services: Injected) -> Response:
    if _swagger(services, SWAGGER_FILES[0]) is None:
        return HTMLResponse(NO_SWAGGER, 503, headers=HEADERS)
    return FileResponse(FILES["docs.html"], headers=DOCS_HEADERS)


@router.get("/v1/docs/assets/{name}")
async def docs_asset(name: str, services: Injected) -> FileResponse:
    path = _swagger(services, name) if name in SWAGGER_FILES else None
    if path is None:
        raise SandboxError("not_found", f"there is no v1/docs/assets/{name}")
    return FileResponse(path, headers=DOCS_HEADERS)


def _swagger(services: Injected, name: str) -> Path | None:
    assets = services.settings.web_assets
    path = assets / "swagger-ui-dist" / name if assets else None
    return path if path and path.is_file() else None


@router.get("/llms.txt")
async def guide(request: Request, services: Injected) -> PlainTextResponse:
    base = public_base(request, services.settings)
    overview, detail = await services.system.overview(base)
    paths = request.app.openapi()["paths"]
    routes = [
        f"- {method.upper()} {path}: {operation.get('summary', '')}"
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]
    text = describe(overview, detail, base) + "\nRoutes:\n" + "\n".join(routes) + "\n"
    return PlainTextResponse(text, headers=HEADERS)
