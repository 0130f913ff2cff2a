"""Files of variables, in the format of systemd's `EnvironmentFile=`."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def quoted(value: object) -> str:
    """The value in double quotes, on one line."""
    return quoted_lines(re.sub(r"\s*\n\s*", " ", str(value)))


def quoted_lines(value: object) -> str:
    """The value in double quotes, with its line breaks."""
    return '"' + re.sub(r'(["\\`$])', r"\\\1", str(value)) + '"'


def parse(text: str) -> Iterator[tuple[str, str]]:
    """The variables in such a file, as far as our templates use the format: quoted values may have several lines."""
    lines = iter(text.split("\n"))  # other separators belong to a value
    for line in lines:
        match = _LINE.fullmatch(line)
        if not match:
            continue
        name, value = match.groups()
        while value.startswith('"') and not _QUOTED.fullmatch(value.rstrip()):
            following = next(lines, None)
            if following is None:
                break
            value += f"\n{following}"
        value = value.rstrip()
        if _QUOTED.fullmatch(value):
            value = re.sub(r'\\(["\\`$])', r"\1", value[1:-1])
        elif len(value) >= 2 and value[0] == value[-1] == "'":
            value = value[1:-1]
        yield name, value
