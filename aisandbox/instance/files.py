"""Files that are replaced whole, so that no reader ever sees half of one."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Give the file this text and mode, atomically and durably. Returns whether anything changed."""
    content = text.encode()
    try:
        if path.read_bytes() == content and stat.S_IMODE(path.stat().st_mode) == mode:
            return False
    except OSError:
        pass  # missing or unreadable: write it
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def remove(path: Path) -> bool:
    """Have no such file. Returns whether there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def write_json(path: Path, value: Any, mode: int = 0o644) -> bool:
    """Like `write`, with JSON that is the same for the same value."""
    return write(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", mode)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in the file; None when there is no such file, or it holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
