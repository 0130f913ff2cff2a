"""Layers as one root file system to read from."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aisandbox.builder.container import OVERLAY_OPTIONS


@contextmanager
def read_only(lower: str, at: Path) -> Iterator[Path]:
    """The layers, mounted at a folder that is made for it. Call it inside `container.enter_namespaces()`.

    Args:
        lower: directories as for an overlay's `lowerdir`, uppermost first.

    Raises:
        subprocess.CalledProcessError: the mount failed.
    """
    if ":" not in lower:
        # The kernel stacks two at least.
        yield Path(lower)
        return
    at.mkdir(exist_ok=True)
    options = f"ro,lowerdir={lower},{OVERLAY_OPTIONS}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)
        at.rmdir()
