"""Host tools run as child processes: found by name, and never silent about why they failed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from aisandbox.builder.errors import BuildError

PACKAGES = {
    "debugfs": "e2fsprogs",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "sfdisk": "fdisk",
}
"""The Debian package that brings each tool."""


def find(tool: str) -> str:
    """The path of a tool on this host.

    Raises:
        BuildError: the tool is missing; the fix names the Debian package.
    """
    # Debian leaves the sbin folders out of an ordinary user's PATH.
    path = shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if not path:
        raise BuildError(f"{tool} is not installed", f"apt-get install {PACKAGES.get(tool, tool)}")
    return path


def run(
    tool: str,
    *arguments: str | Path,
    stdin: str = "",
    cwd: Path | None = None,
    tick: Callable[[bytes], None] | None = None,
) -> bytes:
    """Run a tool to its end and return its standard output.

    The child is killed when anything interrupts the wait (Ctrl-C included), so that it cannot outlive the caller.

    Args:
        tick: called about four times a second with the output so far.

    Raises:
        BuildError: the tool is missing, or exits with an error; the message carries its last words.
    """
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        source.write(stdin.encode())
        source.seek(0)
        command: Sequence[str | Path] = (find(tool), *arguments)
        child = subprocess.Popen(command, stdin=source, stdout=output, stderr=errors, cwd=cwd)
        try:
            while child.poll() is None:
                try:
                    child.wait(0.25 if tick else None)
                except subprocess.TimeoutExpired:
                    if tick:
                        tick(_content(output))
        except BaseException:
            child.kill()
            child.wait()
            raise
        if child.returncode:
            words = (_content(errors) or _content(output)).decode(errors="replace").strip().splitlines()[-3:]
            shown = " ".join([tool, *map(str, arguments)])
            raise BuildError(
                f"{tool} failed with status {child.returncode}: {' / '.join(words) or 'no reason given'}",
                f"run it by hand to see more: {shown}",
            )
        return _content(output)


def _content(file: BinaryIO) -> bytes:
    """What the child wrote so far; a positioned read leaves the shared file offset alone."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
