"""All routes of the shell."""

from __future__ import annotations

from fastapi import APIRouter

from sandbox_api.shell import bash_routes, shell_routes, terminal_routes

router = APIRouter()
for part in (bash_routes, shell_routes, terminal_routes):
    router.include_router(part.router)

direct = bash_routes.direct | shell_routes.direct
