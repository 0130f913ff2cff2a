"""Files of variables, in the format of systemd's `EnvironmentFile=`."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def quoted(value: object) -> str:
    """The value in double quotes, on one line."""
    text = re.sub(r"\s*\n\s*", " ", str(value))
    return '"' + re.sub(r'(["\\`$])', r"\\\1", text) + '"'


def parse(text: str) -> Iterator[tuple[str, str]]:
    """The variables in such a file, as far as our templates use the format: one on each line, perhaps quoted."""
    for line in text.splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if not match:
            continue
        name, value = match.groups()
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = re.sub(r'\\(["\\`$])', r"\1", value[1:-1])
        elif len(value) >= 2 and value[0] == value[-1] == "'":
            value = value[1:-1]
        yield name, value
