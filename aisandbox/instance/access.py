"""Who may reach what, without any secret: part of the deployment, read by all that show or guard the instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Access:
    """The guards in force. Without any, everyone who reaches the instance may use chat and API."""

    api_key: bool = False
    """Whether the API asks for the key."""
    chat_login: bool = False
    """Whether the chat page asks for a login."""
    allowed_cidrs: tuple[str, ...] = ()
    """Networks that may reach chat, API and sandbox; empty allows all."""
    domain: str | None = None
    """Chat and API are served by HTTPS under this name."""
    sandbox: Literal["off", "local", "public"] = "local"

    @property
    def chat_guarded(self) -> bool:
        """Whether the chat page is for some people only."""
        return self.chat_login or bool(self.allowed_cidrs)

    @property
    def chat_sandbox(self) -> bool:
        """Whether the chat page offers the sandbox: an open chat is not an open shell."""
        return self.sandbox != "off" and self.chat_guarded
