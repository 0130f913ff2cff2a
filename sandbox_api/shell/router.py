"""All routes of the shell."""

from __future__ import annotations

from fastapi import APIRouter

from sandbox_api.shell.bash_routes import direct as direct
from sandbox_api.shell.bash_routes import router as bash
from sandbox_api.shell.terminal_routes import router as terminal

router = APIRouter()
for part in (bash, terminal):
    router.include_router(part)
