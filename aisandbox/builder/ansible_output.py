"""Reads what Ansible prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

TAIL_BYTES = 8192


def failure(lines: Sequence[str]) -> str | None:
    """The task that failed first, and why in its own words; None when none did."""
    task = ""
    for line in lines:
        if "TASK [" in line:
            task = line.split("TASK [", 1)[1].split("]", 1)[0]
        if "fatal: [" in line or "failed: [" in line:
            return f"{task}: {_words(line)}"
    return None


def tail(log: Path) -> str:
    """The end of a log that is being written; empty before it is there."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return handle.read().decode(errors="replace")
    except OSError:
        return ""


def _words(line: str) -> str:
    """The readable part of the report of a failed task."""
    report = line.split("=>", 1)[-1].strip()
    with suppress(json.JSONDecodeError):
        facts = json.JSONDecoder().raw_decode(report)[0]
        report = str(facts.get("stderr") or facts.get("msg") or report)
    return " / ".join(part.strip() for part in report.strip().splitlines()[-4:])[:800]
