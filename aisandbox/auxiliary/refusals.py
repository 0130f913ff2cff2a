"""Errors of the service in the shape of OpenAI's."""

from __future__ import annotations

import logging
import secrets

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from aisandbox.auxiliary.errors import RequestError, WorkerError

log = logging.getLogger(__name__)
RETRY_S = 5


def install(app: FastAPI) -> None:
    """Have every error of the service answered in words."""
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_field)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(WorkerError, _fail)
    app.add_exception_handler(Exception, _fail)


def _error(status: int, message: str, code: str, param: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "service_unavailable" if status == 503 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers={"Retry-After": str(RETRY_S)} if status == 503 else None)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error(error.status, str(error), error.code, error.param)


async def _refuse_field(_: Request, error: Exception) -> Response:
    """Says what is wrong with the first of the wrong fields."""
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    place = [str(step) for step in problem["loc"] if step != "body"]
    field = place[0] if place else None
    message = str(problem["msg"]).removeprefix("Value error, ")
    return _error(400, f"{field or 'The body'}: {message}.", "invalid_value", field)


async def _refuse_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), "unknown_url")


async def _fail(_: Request, error: Exception) -> Response:
    """Nothing of the cause is told but its place in the log."""
    trace = secrets.token_hex(8)
    log.error("trace %s: %s", trace, error, exc_info=not isinstance(error, WorkerError))
    message = "The model could not be asked, for want of memory perhaps" if isinstance(error, WorkerError) else "Failed"
    return _error(500, f"{message}. Trace id: {trace}.", "server_error")
