"""Reads control files of Debian's package tools: dpkg's status, apt's states, copyright files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

STATUS = "var/lib/dpkg/status"
FIELD = re.compile(r"^([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*)$")


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs: their fields, whose further lines follow after newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line.strip()
        elif not line.startswith("#") and (match := FIELD.match(line)):
            name = match[1]
            fields[name] = match[2]


def installed(record: Mapping[str, str]) -> bool:
    """Whether a paragraph of dpkg's status is that of an installed package."""
    return "installed" in record.get("Status", "").split()
