"""Routes of access."""

from __future__ import annotations

from fastapi import APIRouter, Request

from sandbox_api.access.service import Caller

router = APIRouter(tags=["auth"])


@router.get("/auth", summary="Check a credential")
async def authenticate(request: Request) -> dict[str, str]:
    """200 for a good credential, else 401. `method` is none when authentication is off."""
    caller: Caller = request.state.caller
    return {"status": "ok", "method": caller.method, "subject": caller.subject, "path": caller.path}
