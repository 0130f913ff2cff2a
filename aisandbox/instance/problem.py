"""What the user must be told of their choice."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

from aisandbox.manifest import Part


def printable(text: object) -> str:
    """The text on one line, without what could move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " if letter == "\n" else "?" for letter in str(text))


def sentence_case(clause: str) -> str:
    """The clause with a capital letter, unless it begins with a name, such as that of a unit or a model."""
    return clause[:1].upper() + clause[1:] if re.match(r"[a-z]+[ ,]", clause) else clause


Line = Annotated[str, BeforeValidator(printable)]
"""Text for people, of which a part may come from anybody: on one line, and such that a file can hold it."""
Given = Annotated[str | None, BeforeValidator(lambda text: None if text is None else printable(text))]


class Problem(Part):
    """Something that is not as the user asked for. The appliance works on without it."""

    option: Given = None
    """Key of the option at fault, if one is."""
    value: Given = None
    """What was given; secrets are masked."""
    reason: Line
    fix: Line
    source: Given = None
    """Where it was given: a file, or a part of the user-data."""

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.option, self.value and f"'{self.value}'")))
        where = f" ({self.source})" if self.source else ""
        return f"{what}{where}: {self.reason}" if what or where else sentence_case(self.reason)
