"""Errors as the published client reads them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from sandbox_api.errors import SandboxError

CLIENT = "x-fern-language"
"""The header by which the client is known."""
REAL_STATUSES = {401, 403, 422, 429}
DOWNLOAD = "/v1/file/download"
"""Here an error must not be taken for the file."""
# The client reads `data` of a failure as the operation's result, so the fields that it requires there are present.
EMPTY_RESULTS: dict[str, dict[str, Any]] = {
    "read": {"content": ""},
    "glob": {"pattern": ""},
    "grep": {"pattern": ""},
    "upload": {"file_size": 0, "success": False},
    "str_replace_editor": {"output": "", "prev_exist": False},
}


def status(request: Request, error: SandboxError) -> int:
    """The client reads `success`, and takes other statuses than 200 for a broken connection.

    The server that it was made for answers 200 to what the sandbox could not do; refused access and malformed requests
    stay errors.
    """
    real = CLIENT not in request.headers or error.status in REAL_STATUSES or request.scope["path"] == DOWNLOAD
    return error.status if real else 200


def with_details(error: SandboxError) -> SandboxError:
    """An error of a file operation with the path and the message under all the names that the client looks for."""
    if isinstance(error.data, dict) and {"operation", "path"} <= error.data.keys():
        path = error.data["path"]
        error.data = {
            **EMPTY_RESULTS.get(error.data["operation"], {}),
            "file": path,
            "file_path": path,
            "message": error.message,
            "error": error.message,
            "error_type": error.code,
            "retryable": error.entry.retryable,
            **error.data,
        }
    return error
