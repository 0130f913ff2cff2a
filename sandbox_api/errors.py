"""The registry of error codes, and the one exception that carries them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Code:
    """What an error code means. `hint` says what to do; whoever raises the error may give a better one."""

    status: int
    hint: str
    retryable: bool = False


CODES: dict[str, Code] = {
    # Requests
    "invalid_request": Code(422, "Correct the fields named in the message; /v1/docs describes each route."),
    "invalid_json": Code(400, "Send a JSON object with Content-Type: application/json."),
    "not_found": Code(404, "See /v1/docs for the routes that exist."),
    "method_not_allowed": Code(405, "See /v1/docs for the methods of this route."),
    "too_large": Code(413, "Send less at once, or raise the limit named in the message."),
    "not_acceptable": Code(406, "Accept the content type that /v1/docs names."),
    "unsupported_media_type": Code(415, "Send the content type that /v1/docs names."),
    "not_implemented": Code(501, "This sandbox does not offer it; docs/sandbox.md says what it offers instead."),
    "conflict": Code(409, "Check the current state, then retry."),
    "limit_reached": Code(429, "Stop something that is running, or wait until it ends.", retryable=True),
    "quota_exceeded": Code(
        507, "Stop or delete something; GET /v1/sandbox/observe/live shows what uses the most.", retryable=True
    ),
    "internal_error": Code(500, "This is a defect. Report it with the trace id; the log has the details under it."),
    # Access
    "unauthorized": Code(401, "Send Authorization: Bearer TOKEN or X-API-Key: KEY; in a browser, open / first."),
    "forbidden": Code(403, "Use a credential with wider access."),
    "foreign_host": Code(403, "Use localhost, or name the host in SANDBOX_ALLOWED_HOSTS, or turn authentication on."),
    "foreign_origin": Code(403, "Call from the sandbox's own pages, or name the origin in SANDBOX_ALLOWED_ORIGINS."),
    # Files
    "path_not_absolute": Code(422, "Start the path with /."),
    "path_outside": Code(403, "Use a path under the workspace, or add its folder to SANDBOX_FILE_ROOTS."),
    "file_not_found": Code(404, "List the folder to see what is there."),
    "file_exists": Code(409, "Choose another name, or allow it to be overwritten."),
    "not_a_file": Code(409, "Use the route for folders."),
    "not_a_directory": Code(409, "Use the route for files."),
    "permission_denied": Code(403, "The sandbox's user may not do this; check the owner and mode."),
    "binary_file": Code(415, "Ask for it with encoding=base64, or download it."),
    "file_changed": Code(412, "Read the file again, then retry with its new etag."),
    "range_not_satisfiable": Code(416, "Ask for a range within the file's size, which the message names."),
    "watcher_not_found": Code(404, "GET /v1/file/watch lists them; idle ones are stopped after a while."),
    "text_not_found": Code(404, "Read the file and use its exact text, white space included."),
    "text_not_unique": Code(409, "Include more of the surrounding text, so that it occurs only once."),
    "disk_full": Code(507, "Delete something, then retry."),
    "io_error": Code(500, "See the message for the original error."),
    # Commands and code
    "shell_unavailable": Code(503, "Install a shell, or set SANDBOX_SHELL."),
    "command_not_found": Code(404, "List the commands to see which exist; finished ones are forgotten after a while."),
    "command_finished": Code(409, "The command has ended; read its output."),
    "session_not_found": Code(404, "List the sessions, or create one."),
    "session_busy": Code(409, "Wait for the running command, or kill it.", retryable=True),
    "code_unavailable": Code(503, "The message says what is missing."),
    "language_unknown": Code(422, "Use python or javascript."),
    "kernel_failed": Code(502, "Retry; a new kernel is started.", retryable=True),
    # Browser and desktop
    "browser_unavailable": Code(503, "GET /v1/sandbox says why; if it is starting, retry shortly.", retryable=True),
    "browser_failed": Code(502, "See the message for the original error."),
    "navigation_failed": Code(502, "Check the address, and that the sandbox can reach it."),
    "element_not_found": Code(404, "GET /v1/browser/page/elements lists what can be used."),
    "tab_not_found": Code(404, "GET /v1/browser/tabs lists the tabs."),
    "browser_timeout": Code(504, "Allow more time, or wait for something more specific.", retryable=True),
    "display_unavailable": Code(503, "GET /v1/sandbox says why; if it is starting, retry shortly.", retryable=True),
    # Things behind the entry
    "service_unavailable": Code(503, "GET /v1/sandbox says why; if it is starting, retry shortly.", retryable=True),
    "port_forbidden": Code(403, "Choose a port of your own program; the sandbox's ports are not reachable this way."),
    "port_closed": Code(502, "Start a program that listens on this port, on 127.0.0.1.", retryable=True),
    "proxy_failed": Code(502, "The program closed the connection before its answer was complete.", retryable=True),
    "tool_not_found": Code(404, "GET /v1/mcp/servers and /v1/mcp/{server}/tools list them."),
    "skill_not_found": Code(404, "GET /v1/skills/metadatas lists them."),
    "report_not_found": Code(404, "GET /v1/sandbox/observe/reports lists them."),
    "not_ready": Code(503, "Retry shortly; GET /v1/sandbox says what each part waits for.", retryable=True),
    "fetch_failed": Code(502, "Check the address, and that the sandbox can reach it.", retryable=True),
    "conversion_failed": Code(422, "Read the file itself, or convert it with a program of your own."),
    "conversion_timeout": Code(504, "Use a smaller document, or raise SANDBOX_CONVERT_TIMEOUT_S."),
    "hook_not_found": Code(404, "GET /v1/sandbox/hooks lists them."),
}


class SandboxError(Exception):
    """An error that the caller sees.

    Args:
        code: one of `CODES`.
        message: what happened, with the names involved.
        hint: what to do, in place of the registry's hint.
        data: machine-readable details; partial results, too.
    """

    def __init__(self, code: str, message: str, *, hint: str | None = None, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.entry = CODES[code]
        self.hint = hint or self.entry.hint
        self.data = data

    @property
    def status(self) -> int:
        return self.entry.status
