"""What `make fuzz` tries, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from tests.fuzz.search import Property, Search


@dataclass(frozen=True)
class Target:
    """A part that reads what strangers send. Its module is loaded when it is tried."""

    name: str
    about: str
    module: str
    starts_servers: bool = False

    def run(self, search: Search) -> None:
        """Raises whatever breaks a property."""
        module = import_module(f"tests.fuzz.{self.module}")
        if self.starts_servers:
            tried: Callable[[str, Search], None] = module.search
            tried(self.name, search)
            return
        properties: tuple[Property, ...] = module.PROPERTIES
        search.rounds(properties)


TARGETS = (
    Target("options", "user-data, options files, forms, kernel command line, metadata services", "options"),
    Target("environment", "files of variables", "environment_files"),
    Target("limits", "the engine's limits of requests", "request_limits"),
    Target("models", "configurations and weights that a model brings along", "models"),
    Target("rfb", "VNC: what viewers and servers send", "rfb"),
    Target("wire", "messages and output of code, commands and sessions", "wire"),
    Target("archives", "releases, skills, packed folders", "archives"),
    Target("headers", "conditions, ranges, tokens, pictures, front matter", "headers"),
    Target("sandbox", "the sandbox's API, without authentication", "sandbox", starts_servers=True),
    Target("sandbox-key", "the sandbox's API, which asks for a key", "sandbox", starts_servers=True),
    Target("gateway", "the API port, open", "gateway", starts_servers=True),
    Target("gateway-key", "the API port, which asks for a key", "gateway", starts_servers=True),
)
