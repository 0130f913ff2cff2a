"""Requests and answers of access."""

from __future__ import annotations

from pydantic import BaseModel, Field


class TicketRequest(BaseModel):
    path: str = Field(
        "/",
        max_length=512,
        pattern=r"^/[A-Za-z0-9._~/%-]*$",
        description="The ticket works at this path and under it, such as /vnc/; everywhere if omitted.",
    )
    view_only: bool = Field(
        False,
        description="Whoever comes by the ticket sees the desktop and cannot touch it: keys, pointer and clipboard are "
        "dropped. Needs a path under /vnc.",
    )


class Ticket(BaseModel):
    ticket: str = Field(description="Append it to an address as ?ticket=… It works once.")
    expires_in: float = Field(description="Seconds.")
    path: str
    url: str = Field(description="The path's address with the ticket, to open in a browser.")
