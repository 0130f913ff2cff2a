"""Answers about tools, in the shapes of MCP."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ToolInfo(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str
    title: str | None = None
    description: str | None = None
    inputSchema: dict[str, Any]  # noqa: N815 - as MCP spells it
    outputSchema: dict[str, Any] | None = None  # noqa: N815
    annotations: dict[str, Any] | None = None


class ToolList(BaseModel):
    tools: list[ToolInfo]


class CallResult(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    content: list[dict[str, Any]] = Field(description="Text and pictures.")
    structuredContent: dict[str, Any] | None = None  # noqa: N815
    isError: bool = Field(False, description="The tool could not do it; the content says why.")  # noqa: N815
    meta: dict[str, Any] | None = Field(None, alias="_meta")
