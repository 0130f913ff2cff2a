"""What can go wrong while getting a model, told apart by what helps."""

from __future__ import annotations


class UnobtainableError(Exception):
    """The model cannot be had as chosen. `fix` says what the user can do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class UnreachableError(Exception):
    """The hub cannot serve now; trying again can help. `wait_s` is the hub's own wish, if it has one."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s
