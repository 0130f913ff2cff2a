"""What the user must be told of their choice."""

from __future__ import annotations

from dataclasses import dataclass

CONFIGURE = "sudo aisandbox configure"
SET = f"{CONFIGURE} --set"
"""What most fixes begin with."""


def printable(text: object) -> str:
    """The text on one line, without what could move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " if letter == "\n" else "?" for letter in str(text))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is not as the user asked for. The appliance works on without it.

    Every text is made printable: a part of it may come from anybody.
    """

    option: str | None = None
    """Key of the option at fault, if one is."""
    value: str | None = None
    """What was given; secrets are masked."""
    reason: str
    fix: str
    source: str | None = None
    """Where it was given: a file, or a part of the user-data."""

    def __post_init__(self) -> None:
        for name, text in list(vars(self).items()):
            if text is not None:
                object.__setattr__(self, name, printable(text))

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.option, self.value and f"'{self.value}'")))
        where = f" ({self.source})" if self.source else ""
        return f"{what}{where}: {self.reason}" if what or where else self.reason
