"""The chat that a request belongs to, and the folder that it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from sandbox_api.errors import SandboxError
from sandbox_api.services import Injected, Services
from sandbox_api.shell.models import SESSION_NAME


class Conversation:
    """One chat: its commands share a shell session, and relative paths count from that session's folder."""

    def __init__(self, services: Services, chat_id: str) -> None:
        self.services = services
        name = f"chat-{chat_id}"
        self.session_id = name if chat_id and SESSION_NAME.fullmatch(name) else None

    @property
    def directory(self) -> Path:
        session = self.services.shell.sessions.get(self.session_id or "")
        return session.directory if session else self.services.paths.workspace

    def path(self, path: str) -> str:
        """Absolute. A model writes ~ and relative paths as in a shell."""
        if path == "~" or path.startswith("~/"):
            path = f"{self.services.paths.workspace}{path[1:]}"
        return str(self.directory / path)

    async def move_to(self, directory: str) -> None:
        """Make this the folder of the chat.

        Raises:
            SandboxError: `file_not_found`, `not_a_directory`, `path_outside`, `limit_reached`.
        """
        if (await self.services.file.stat(directory)).type != "directory":
            raise SandboxError("not_a_directory", f"{directory} is not a folder")
        if self.session_id:
            await self.services.shell.run(f"cd -- {_quoted(directory)}", session_id=self.session_id)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _conversation(connection: HTTPConnection, services: Injected) -> Conversation:
    return Conversation(services, connection.headers.get("x-session-id", ""))


InConversation = Annotated[Conversation, Depends(_conversation)]
