"""Where the services answer by HTTP, and when that counts as serving.

Standard library only: an upgrade asks the same with the system's Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aisandbox.instance.http_probe import Answer, ask


@dataclass(frozen=True)
class Door:
    """A page of a service that tells whether it serves."""

    port: str
    """Its name in the manifest."""
    path: str
    keyed: bool = False
    """Whether it may ask for a key: one that refuses serves all the same."""

    def ask(self, port: int, timeout_s: float) -> Answer:
        return ask(port, self.path, timeout_s)

    def serves(self, port: int, timeout_s: float) -> bool:
        answer = self.ask(port, timeout_s)
        return answer.serves if self.keyed else answer.ok


DOORS = {
    "chat": Door("chat", "/health"),
    "chat-server": Door("chat_upstream", "/health"),
    "api": Door("api", "/ready"),
    "engine": Door("api_upstream", "/health"),
    "sandbox": Door("sandbox", "/v1/openapi.json", keyed=True),
}
"""`chat` and `api` are asked through the gateway, as users do; `chat-server` and `engine` directly."""


def serves(name: str, ports: Mapping[str, int], timeout_s: float) -> bool:
    """Whether the service behind that door serves."""
    door = DOORS[name]
    return door.serves(ports[door.port], timeout_s)
