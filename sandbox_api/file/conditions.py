"""ETags, and what a caller may demand of a file before it is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

from sandbox_api.dates import utc
from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import shown

MICROSECOND = 1e-6


def etag(found: os.stat_result) -> str:
    """Changes with every write that the file system can tell: file number, size and time of change."""
    return f'"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"'


def http_date(found: os.stat_result) -> str:
    return format_datetime(utc(found.st_mtime), usegmt=True)


def names(header: str | None) -> frozenset[str]:
    """ETags of a header such as `If-Match`, without quotes."""
    return frozenset(part.strip().removeprefix("W/").strip('"') for part in (header or "").split(",") if part.strip())


def seconds(header: str | None) -> float | None:
    """An HTTP date as Unix time.

    Raises:
        SandboxError: `invalid_request`.
    """
    if not header:
        return None
    try:
        return parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError) as error:
        raise SandboxError("invalid_request", f"not a valid HTTP date: {header[:80]}") from error


@dataclass(frozen=True)
class Precondition:
    """What must hold of a file before it is changed; by default nothing.

    Attributes:
        etags: one of these, without quotes; `*` is any existing file.
        unmodified_since: Unix time; fails for a file that was modified later.
        resolution: seconds that the time was rounded by.
        absent: there must be no file.
    """

    etags: frozenset[str] = frozenset()
    unmodified_since: float | None = None
    resolution: float = MICROSECOND
    absent: bool = False

    def check(self, path: Path, found: os.stat_result | None) -> None:
        """Raises `file_changed`, with the present etag as `data`, or `file_exists`."""
        if self.absent and found is not None:
            raise SandboxError("file_exists", f"it exists already: {shown(path)}")
        if found is None:
            fails = bool(self.etags) or self.unmodified_since is not None
        else:
            known = not self.etags or "*" in self.etags or etag(found).strip('"') in self.etags
            young = self.unmodified_since is not None and found.st_mtime >= self.unmodified_since + self.resolution
            fails = not known or young
        if fails:
            what = "it has changed since" if found else "it does not exist any more"
            data = {"etag": etag(found), "mtime": found.st_mtime} if found else {"etag": None, "mtime": None}
            raise SandboxError("file_changed", f"{what}: {shown(path)}", data=data)


NONE = Precondition()
