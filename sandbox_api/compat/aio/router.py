"""Routes whose answers have fields beside `data`, and other habits of the published client."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import Match
from starlette.types import Scope

from sandbox_api import __version__
from sandbox_api.access.models import Ticket, TicketRequest
from sandbox_api.addresses import public_base
from sandbox_api.compat.aio import absent, shell_routes
from sandbox_api.compat.aio.errors import CLIENT
from sandbox_api.desktop.models import Action
from sandbox_api.envelope import Envelope, ok
from sandbox_api.file.models import PollResult
from sandbox_api.file.router import WatcherId
from sandbox_api.services import Injected
from sandbox_api.system.models import Overview, SandboxDetail
from sandbox_api.system.text import describe

TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The sandbox"}
}


class SandboxAnswer(Envelope[Overview]):
    home_dir: str
    workspace: str | None = None
    version: str
    detail: SandboxDetail


class ActionData(BaseModel):
    status: Literal["success"] = "success"
    action_performed: str


class ActionAnswer(Envelope[ActionData]):
    """Carries the two fields of `data` beside it as well, for clients of that older form."""

    status: Literal["success"] = "success"
    action_performed: str = ""


class TicketAnswer(Envelope[Ticket]):
    ticket: str
    expires_in: float


def _wants_text(request: Request) -> bool:
    return request.headers.get("accept", "").split(",")[0].split(";")[0].strip() == "text/plain"


router = APIRouter()


@router.get("/v1/sandbox", tags=["sandbox"], summary="What the sandbox is, and what works now", responses=TEXT)
async def context(
    request: Request,
    services: Injected,
    format: Annotated[str | None, Query(pattern="^(json|text)$", description="`text` reads well for a model.")] = None,
) -> SandboxAnswer:
    base = public_base(request, services.settings)
    overview, detail = await services.system.overview(base)
    if format == "text" or (format is None and _wants_text(request)):
        return PlainTextResponse(describe(overview, detail, base))  # type: ignore[return-value]
    return SandboxAnswer(
        data=overview,
        home_dir=detail.system.home_dir,
        workspace=overview.workspace,
        version=__version__,
        detail=detail,
    )


@router.post("/v1/browser/actions", tags=["browser"])
async def act(action: Action, services: Injected) -> ActionAnswer:
    """Use mouse or keyboard of the desktop, as a person would. Places are pixels of the screenshot."""
    done = await services.desktop.act(action)
    return ActionAnswer(data=ActionData(action_performed=done), action_performed=done)


@router.post("/tickets", tags=["auth"], summary="Create a one-time ticket")
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


class _ForClient(APIRoute):
    """Answers the published client only, and only where it does not ask for a stream of events."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        headers = dict(scope.get("headers", ()))
        if CLIENT.encode() not in headers or b"text/event-stream" in headers.get(b"accept", b""):
            return Match.NONE, {}
        return super().matches(scope)


whole = APIRouter(route_class=_ForClient, include_in_schema=False)


@whole.get("/v1/file/watch/{watcher_id}/events")
async def watch_events(
    watcher_id: WatcherId, services: Injected, cursor: Annotated[int, Query(ge=0)] = 0
) -> Envelope[PollResult]:
    """The client reads this answer to its end before it looks at it."""
    return ok(services.file.watchers.get(watcher_id).after(cursor, 1000))


for part in (whole, shell_routes.router, absent.router):
    router.include_router(part)
