"""What callers are told: in words, with the status and the code of OpenAI's errors."""

from __future__ import annotations


class RequestError(Exception):
    """The request cannot be answered; the caller can do something about it."""

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_value", param: str | None = None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class WorkerError(Exception):
    """The process with the model ended, for want of memory most likely."""
