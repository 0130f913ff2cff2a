"""What the user must be told of the instance's security."""

from __future__ import annotations

from collections.abc import Iterator

from aisandbox.instance.access import Access
from aisandbox.instance.problem import SET
from aisandbox.manifest import Manifest, Part


class SecurityWarning(Part):
    """Something that the user should know and can change."""

    text: str
    fix: str


def warnings(manifest: Manifest, access: Access, container: bool = False) -> tuple[SecurityWarning, ...]:
    """Security warnings that hold for the instance now, each with the command that closes it.

    Args:
        container: whether the instance is one, which has neither a firewall nor HTTPS of its own.
    """
    return tuple(_warnings(manifest, access, container))


def _warnings(manifest: Manifest, access: Access, container: bool) -> Iterator[SecurityWarning]:
    chat, api, sandbox = (manifest.ports[name] for name in ("chat", "api", "sandbox"))
    only_yours = "" if container else f" (or let only your own addresses in: {SET} allowed_cidrs=ADDRESS)"
    if not access.chat_guarded:
        without = "" if access.sandbox == "off" else " So it has none of the sandbox's terminal, files and tools."
        yield SecurityWarning(
            text=f"{chat.label}: open to everyone who can reach port {chat.port}, without a login.{without}",
            fix=f"Ask for a login: sudo aisandbox configure --chat-password -{only_yours}",
        )
    if not (access.api_key or access.allowed_cidrs):
        yield SecurityWarning(
            text=f"{api.label}: open to everyone who can reach port {api.port}, without a key.",
            fix=f"Ask for a key: sudo aisandbox configure --api-key -{only_yours}",
        )
    if access.sandbox == "public":
        to = "the allowed addresses" if access.allowed_cidrs else "everyone"
        yield SecurityWarning(
            text=f"{sandbox.label}: port {sandbox.port} is open to {to}, without encryption. "
            "Whoever has its key, or listens on the way, can run programs here.",
            fix=f"Close the port, for {'' if container else 'SSH tunnels and '}the chat alone: {SET} sandbox=local",
        )
    guarded = [
        name
        for name, holds in (
            ("the login of the chat page", access.chat_login),
            ("the API's key", access.api_key),
        )
        if holds
    ]
    if guarded and not access.domain:
        yield SecurityWarning(
            text=f"HTTP without encryption: whoever listens on the way can read {' and '.join(guarded)}.",
            fix="Reach it by HTTPS only, through the platform's proxy or one of your own."
            if container
            else f"Point a name at this instance, and have HTTPS: {SET} domain=NAME",
        )
