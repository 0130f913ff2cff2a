"""What keeps an upgrade from happening."""

from __future__ import annotations


class UpgradeError(Exception):
    """The upgrade cannot be made; the release that runs was not touched. `fix` is the command or step that mends it."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix
