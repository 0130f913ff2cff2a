"""What is wrong with an option's value."""

from __future__ import annotations


class InvalidOptionError(Exception):
    """A value that breaks its option's rules. `reason` says which, `fix` what would be right.

    `usable` is the part of it that obeys them: the good ones of several networks or arguments.
    """

    def __init__(self, reason: str, fix: str, usable: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix
        self.usable = usable
