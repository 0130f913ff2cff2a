"""The one exception that the builder's commands turn into a message for the person at the terminal."""

from __future__ import annotations


class BuildError(Exception):
    """Something that a person can mend.

    Args:
        message: what happened and why.
        fix: the command or the step that mends it.
    """

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix
