"""The application: services, routers, and the one form of answers around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from sandbox_api import __version__, environment, quotas
from sandbox_api.access.guard import Guard
from sandbox_api.access.router import router as access
from sandbox_api.body_limit import BodyLimit
from sandbox_api.browser.router import router as browser
from sandbox_api.code.router import direct as code_direct
from sandbox_api.code.router import router as code
from sandbox_api.compat.aio import errors as aio
from sandbox_api.compat.aio.router import router as agent_sandbox
from sandbox_api.compat.aio.shell_routes import direct as agent_sandbox_direct
from sandbox_api.compat.open_webui.router import router as open_webui
from sandbox_api.desktop.router import router as desktop
from sandbox_api.direct import DirectRoutes
from sandbox_api.entry.router import router as entry
from sandbox_api.errors import SandboxError
from sandbox_api.file.router import router as file
from sandbox_api.head import Head
from sandbox_api.log import logger
from sandbox_api.mcp.router import router as mcp
from sandbox_api.missing_body import MissingBody
from sandbox_api.pages.router import router as pages
from sandbox_api.services import Services
from sandbox_api.settings import Settings
from sandbox_api.shell.router import direct as shell_direct
from sandbox_api.shell.router import router as shell
from sandbox_api.skills.router import router as skills
from sandbox_api.system.router import router as system
from sandbox_api.trace import Trace, error_response, trace_id
from sandbox_api.unicode import dumps
from sandbox_api.util.router import router as util

DESCRIPTION = """Shell, files, code, browser and desktop of one sandbox. Every answer has the form
`{success, message, data, hint, error}`; errors carry a code, a hint and a trace id, with a matching HTTP status."""


# The order in which routes are tried: `shell` is called the most; `entry` forwards whatever lies under a prefix.
ROUTERS = (
    shell, agent_sandbox, system, file, code, browser, desktop, mcp, skills, util, open_webui, access, pages, entry,
)  # fmt: skip


class SafeJSONResponse(JSONResponse):
    """FastAPI's own serializer fails on lone surrogates; this one replaces them."""

    def render(self, content: Any) -> bytes:
        return dumps(content)


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()
    services = Services(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        environment.prepare(settings)
        await asyncio.gather(*(service.start() for service in services.all.values()))
        yield
        await services.system.stop()  # first, since its hooks run commands
        await asyncio.gather(*(service.stop() for service in services.all.values()), return_exceptions=True)

    app = FastAPI(
        title="AI Sandbox",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # `pages` serves it from our own files: the sandbox may have no network
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        default_response_class=SafeJSONResponse,
        lifespan=lifespan,
        responses={"default": {"description": "Error in the one form", "model": error_model()}},
    )
    app.state.services = services
    app.add_exception_handler(SandboxError, _on_sandbox_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(UnicodeEncodeError, _on_unencodable)
    for kind in (OSError, MemoryError, RuntimeError, ExceptionGroup):
        app.add_exception_handler(kind, _on_exhausted)
    for router in ROUTERS:
        app.include_router(router)
    direct = shell_direct | agent_sandbox_direct | code_direct
    app.router.routes.insert(0, DirectRoutes(direct, services, app.router))
    app.add_middleware(Head)
    app.add_middleware(MissingBody)
    app.add_middleware(BodyLimit, most=settings.body_bytes)
    app.add_middleware(Guard, settings=settings, tokens=services.access)
    app.add_middleware(Trace)
    return app


def error_model() -> type:
    from sandbox_api.envelope import Envelope

    return Envelope[Any]  # an error has details of any kind


def _answer(request: Request, error: SandboxError) -> Response:
    response = error_response(aio.with_details(error), trace_id(request.scope), aio.status(request, error))
    if error.code == "range_not_satisfiable":
        response.headers["content-range"] = f"bytes */{error.data['size']}"
    return response


async def _on_sandbox_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SandboxError)
    return _answer(request, quotas.translate(error))


async def _on_exhausted(request: Request, error: Exception) -> Response:
    """A quota is reached; anything else is a defect, which `Trace` answers."""
    refusal = quotas.reached(error)
    if refusal is None or request.scope["type"] != "http":
        raise error
    logger.warning("quota", path=request.url.path, problem=repr(error))
    return _answer(request, refusal)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [(".".join(map(str, problem["loc"][1:])), problem) for problem in error.errors()]
    if any(problem["type"] == "json_invalid" for _, problem in problems):
        return _answer(request, SandboxError("invalid_json", "the body is not valid JSON"))
    message = "; ".join(f"{place or 'body'}: {problem['msg']}" for place, problem in problems)
    details = [{"field": place, "problem": problem["msg"]} for place, problem in problems]
    return _answer(request, SandboxError("invalid_request", message, data=details))


async def _on_unencodable(request: Request, error: Exception) -> Response:
    """The request has lone surrogates, by JSON's escapes, in what a program, a path or a file gets."""
    assert isinstance(error, UnicodeEncodeError)
    logger.warning("text that is not valid Unicode", path=request.url.path, exc_info=error)
    message = f"text in the request is not valid Unicode: {error.reason}"
    return _answer(request, SandboxError("invalid_request", message))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    place = f"{request.method} {request.url.path}"
    known = {404: ("not_found", f"there is no {place}"), 405: ("method_not_allowed", f"{place} is not allowed")}
    code, message = known.get(error.status_code, ("invalid_request", str(error.detail)))
    return error_response(SandboxError(code, message), trace_id(request.scope), error.status_code)
