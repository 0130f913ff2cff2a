"""Safetensors files: their header says how long they are. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path

LONGEST_HEADER = 100 << 20
"""The format's own limit."""
_LENGTH = 8


def expected_size(file: Path) -> int:
    """Bytes that a whole file has. Anybody may have written the header.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not begin like a safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH), "little")
        if not 2 <= length <= min(size - _LENGTH, LONGEST_HEADER):
            raise ValueError("no header")
        content = opened.read(length)
    try:
        header = json.loads(content)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ValueError("no header") from error
    if not all(isinstance(end, int) and 0 <= end < 1 << 62 for end in ends):
        raise ValueError("no header")
    return _LENGTH + length + max(ends, default=0)
