"""What the user must be told of their choice."""

from __future__ import annotations

from aisandbox.manifest import Part


class Problem(Part):
    """Something that is not as the user asked for. The appliance works on without it."""

    option: str | None = None
    """Key of the option at fault, if one is."""
    value: str | None = None
    """What was given; secrets are masked."""
    reason: str
    fix: str
    source: str | None = None
    """Where it was given: a file, or a part of the user-data."""

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.option, self.value and f"'{self.value}'")))
        where = f" ({self.source})" if self.source else ""
        return f"{what}{where}: {self.reason}" if what or where else self.reason
