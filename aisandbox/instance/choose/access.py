"""Who may reach what: the part of the choice that guards chat, API and sandbox, and its secrets."""

from __future__ import annotations

from collections.abc import Mapping

from aisandbox.instance.access import Access
from aisandbox.instance.choose.options import Choice

NOBODY = ("127.0.0.1",)
"""Networks for a choice that names none: loopback, thus SSH tunnels."""


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
