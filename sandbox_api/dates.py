"""Times of files as dates."""

from __future__ import annotations

from datetime import UTC, datetime

EARLIEST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
LATEST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


def utc(seconds: float) -> datetime:
    """The time as a date, or the nearest date: a file's time can lie beyond every calendar."""
    return datetime.fromtimestamp(min(max(seconds, EARLIEST), LATEST), UTC)
