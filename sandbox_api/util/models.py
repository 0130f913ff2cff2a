"""Requests about documents."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ConvertRequest(BaseModel):
    uri: str = Field(
        min_length=1,
        max_length=2**27,
        description="http:, https:, file: or data: address of a document, or an absolute path in the sandbox.",
    )
