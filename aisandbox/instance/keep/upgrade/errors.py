"""Why an upgrade cannot be made."""

from __future__ import annotations


class UpgradeError(Exception):
    """The upgrade cannot be made; the running release was not touched. `fix` is the command or step that fixes it."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix
