"""The line of a log that names the cause of a failure. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ERROR = re.compile(r"(?:^|[\s\]])(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception)): (.+)$")
_DETAIL = re.compile(r"^(?:\s+Value error, |\S+: error: )(.+?)(?: \[type=.*)?$")  # of pydantic, of argparse
_CONSEQUENCE = re.compile(r"See (?:root cause above|stack trace for root cause)|EngineDeadError")
_COMPLAINT = re.compile(r"\b(?:emerg|fatal|panic|error)\b", re.IGNORECASE)


def last_error(lines: Iterable[str]) -> str:
    """The last exception or usage error; empty without one."""
    found = ""
    for line in lines:
        if _CONSEQUENCE.search(line):
            continue
        if match := _DETAIL.match(line):
            found = match[1]
        elif match := _ERROR.search(line.rstrip()):
            found = f"{match[1]}: {match[2]}"
    return found


def last_words(lines: Iterable[str]) -> str:
    """The last error, else the last line that complains; empty without either."""
    said = list(lines)
    return last_error(said) or next((line.strip() for line in reversed(said) if _COMPLAINT.search(line)), "")


def describe(error: BaseException) -> str:
    """One line: the cause named in the exception, else its first line."""
    lines = f"{type(error).__name__}: {error}".strip().splitlines()
    return last_error(lines) or lines[0].removesuffix(":")
