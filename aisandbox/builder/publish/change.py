"""What a platform is asked for, and what one answers when it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aisandbox.builder.errors import BuildError

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """One change, as it is shown before it is sent. It holds no secret: those go into headers and signatures."""

    request: str
    """Method and address."""
    body: dict[str, Any]


class Platform(Protocol):
    """What every module of a platform offers."""

    NAME: str
    BODY: str
    """The listing's file that holds the body, but for the image."""

    def change(self, body: dict[str, Any], image: str, environment: Environment) -> Change:
        """The change that makes `image` the platform's newest."""

    def send(self, change: Change, environment: Environment, say: Callable[[str], None]) -> dict[str, Any]:
        """Ask the platform for it; returns its answer."""


def setting(environment: Environment, name: str) -> str:
    """The variable's value, or its name where it is not set: a dry run needs none of them."""
    return environment.get(name) or f"${name}"


class RefusedError(BuildError):
    """The platform has refused the change; nothing was changed."""

    def __init__(self, platform: str, reason: str, fix: str, trace: str | None = None) -> None:
        super().__init__(f"{platform} refused: {reason}{f' (request {trace})' if trace else ''}", fix)
