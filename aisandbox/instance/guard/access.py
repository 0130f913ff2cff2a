"""Who may reach what: the part of the choice that guards chat, API and sandbox. `Access` holds no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from aisandbox.instance.choose.options import Choice
from aisandbox.manifest import Part

NOBODY = ("127.0.0.1",)
"""Networks for a choice that names none: loopback, thus SSH tunnels."""


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

    @property
    def chat_guarded(self) -> bool:
        """Whether the chat page is for some people only."""
        return self.chat_login or bool(self.allowed_cidrs)

    @property
    def chat_sandbox(self) -> bool:
        """Whether the chat page offers the sandbox: an open chat is not an open shell."""
        return self.sandbox != "off" and self.chat_guarded


def of(choice: Choice) -> Access:
    """The guards that a checked choice asks for. One that was asked for in an invalid way is closed, not left out."""
    networks = tuple(part.strip() for part in (choice.allowed_cidrs or "").split(",") if part.strip())
    return Access(
        api_key=choice.api_key is not None or "api_key" in choice.closed,
        chat_login=choice.chat_password is not None or "chat_password" in choice.closed,
        allowed_cidrs=networks or (NOBODY if "allowed_cidrs" in choice.closed else ()),
        domain=choice.domain,
        sandbox=choice.sandbox,
    )


def api_key(choice: Choice, secrets: Mapping[str, str]) -> str | None:
    """The key that the API asks for: the chosen one, else the generated one; None while the API is open."""
    if choice.api_key:
        return choice.api_key.get_secret_value()
    return secrets["api_key"] if of(choice).api_key else None


def chat_password(choice: Choice, secrets: Mapping[str, str]) -> str | None:
    """The password that the chat page asks for, found like the API's key."""
    if choice.chat_password:
        return choice.chat_password.get_secret_value()
    return secrets["chat_password"] if of(choice).chat_login else None
