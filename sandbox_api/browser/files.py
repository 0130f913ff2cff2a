"""Pictures and exports as files: confined, parents created, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import from_os_error
from sandbox_api.file.folder import draft, opened, parent_of, require_file
from sandbox_api.paths import Confinement


def save(paths: Confinement, wanted: str, content: bytes) -> Path:
    """Write the file, replacing one that is there. Returns its real path.

    Raises:
        SandboxError: as of `Confinement.resolve`; `not_a_file`, `permission_denied`, `disk_full`, `io_error`.
    """
    path = paths.resolve(wanted)
    try:
        with parent_of(paths, path, create=True) as folder:
            there = folder.stat(path.name)
            if there is not None:
                require_file(there, path)
            with draft(folder) as beside:
                beside.write(content)
                beside.commit(folder, path.name, there)
    except OSError as error:
        raise from_os_error(error, wanted) from error
    return path


def load(paths: Confinement, wanted: str, most: int) -> bytes:
    """The content of a file of at most `most` bytes.

    Raises:
        SandboxError: as of `Confinement.resolve`; `file_not_found`, `not_a_file`, `too_large`, `permission_denied`.
    """
    path = paths.resolve(wanted)
    try:
        with opened(paths, path) as stream:
            if os.fstat(stream.fileno()).st_size > most:
                raise SandboxError("too_large", f"the file has more than {most} bytes: {wanted}")
            return stream.read()
    except OSError as error:
        raise from_os_error(error, wanted) from error


def readable(paths: Confinement, wanted: str) -> Path:
    """The real path of a file that is there and may be read.

    Raises:
        SandboxError: as of `load`.
    """
    path = paths.resolve(wanted)
    try:
        with opened(paths, path):
            return path
    except OSError as error:
        raise from_os_error(error, wanted) from error
