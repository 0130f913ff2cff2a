"""The one form of every JSON answer."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field

from sandbox_api.errors import SandboxError

T = TypeVar("T")


class ErrorBody(BaseModel):
    code: str = Field(description="Stable name of the error; docs/sandbox.md lists them.")
    message: str
    hint: str
    retryable: bool = Field(description="Whether the same request may succeed later.")
    trace_id: str = Field(description="Names this request in the log; also in the X-Trace-Id header.")


class Envelope(BaseModel, Generic[T]):
    """`success` says whether the operation was done; `error` is there exactly when it was not."""

    success: bool = True
    message: str = "Operation successful"
    data: T | None = None
    hint: str | None = Field(None, description="Context for agents, such as a tab that has opened.")
    error: ErrorBody | None = None


def ok(data: T, message: str = "Operation successful", hint: str | None = None) -> Envelope[T]:
    return Envelope(data=data, message=message, hint=hint)


def failed(error: SandboxError, trace_id: str) -> Envelope[Any]:
    body = ErrorBody(
        code=error.code, message=error.message, hint=error.hint, retryable=error.entry.retryable, trace_id=trace_id
    )
    return Envelope(success=False, message=error.message, data=error.data, hint=error.hint, error=body)
