"""The arguments of vLLM that the user gave, as far as they bear on memory."""

from __future__ import annotations

import json
from collections.abc import Iterable


class Given:
    """Checked arguments (`--name value`), by name."""

    def __init__(self, arguments: Iterable[str]) -> None:
        self._values: dict[str, str] = {}
        name = ""
        for word in arguments:
            if word.startswith("--"):
                name, _, value = word.partition("=")
                self._values[name] = value
            elif name:
                self._values[name] = word

    def has(self, name: str) -> bool:
        """Whether the argument was given."""
        return name in self._values

    def text(self, name: str) -> str | None:
        """The argument's value; None when it was not given."""
        return self._values.get(name) or None

    def number(self, name: str) -> float | None:
        """The argument's value as a positive number; None when it is none."""
        try:
            return max(float(self._values.get(name, "")), 0) or None
        except ValueError:
            return None

    def count(self, name: str, key: str) -> int | None:
        """The number under the key of an argument that is a JSON object; None when there is none."""
        try:
            found = json.loads(self._values.get(name) or "{}").get(key)
        except (ValueError, AttributeError):
            return None
        return found if isinstance(found, int) else None
