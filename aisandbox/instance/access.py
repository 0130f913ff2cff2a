"""Who may reach what: the part of the choice that guards chat, API and sandbox. It holds no secrets."""

from __future__ import annotations

from typing import Literal

from aisandbox.instance.options import Choice
from aisandbox.manifest import Part


class Access(Part):
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


def of(choice: Choice) -> Access:
    """The guards that a checked choice asks for."""
    return Access(
        api_key=choice.api_key is not None,
        chat_login=choice.chat_password is not None,
        allowed_cidrs=tuple(part.strip() for part in (choice.allowed_cidrs or "").split(",") if part.strip()),
        domain=choice.domain,
        sandbox=choice.sandbox,
    )
