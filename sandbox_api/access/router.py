"""Routes of access."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request

from sandbox_api.access.models import Ticket, TicketAnswer, TicketRequest
from sandbox_api.access.service import Caller
from sandbox_api.addresses import public_base
from sandbox_api.services import Injected

router = APIRouter(tags=["auth"])


@router.post("/tickets", summary="Create a one-time ticket")
async def create_ticket(
    request: Request, services: Injected, body: Annotated[TicketRequest | None, Body()] = None
) -> TicketAnswer:
    """For what cannot send headers: open `url` in a browser, or append `?ticket=…` to a websocket's address.

    A page exchanges it for a cookie that holds for that page alone; the start page's holds for everything.
    """
    wanted = body or TicketRequest()
    path, ttl = wanted.path, services.settings.ticket_ttl_s
    ticket = services.access.issue_ticket(request.state.caller, path, view_only=wanted.view_only)
    # The page then hides what the viewer may not do.
    query = ("view_only=1&" if wanted.view_only else "") + f"ticket={ticket}"
    url = f"{public_base(request, services.settings)}{path}?{query}"
    return TicketAnswer(data=Ticket(ticket=ticket, expires_in=ttl, path=path, url=url), ticket=ticket, expires_in=ttl)


@router.get("/auth", summary="Check a credential")
async def authenticate(request: Request) -> dict[str, str]:
    """200 for a good credential, else 401. `method` is none when authentication is off."""
    caller: Caller = request.state.caller
    return {"status": "ok", "method": caller.method, "subject": caller.subject, "path": caller.path}
