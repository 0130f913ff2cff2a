"""Deletes partial files and folders of uploads and copies that were interrupted when their server was killed."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import shown
from sandbox_api.file.folder import DRAFT, parent_of
from sandbox_api.file.tree import Budget, walk
from sandbox_api.log import logger
from sandbox_api.paths import Confinement


def sweep(paths: Confinement, budget: Budget) -> None:
    """Sweep the workspace only: in other folders, another server may be writing."""
    removed = 0
    try:
        for entry, _ in walk(str(paths.workspace), budget, lambda entry, _: not DRAFT.fullmatch(entry.name)):
            if DRAFT.fullmatch(entry.name):
                removed += _remove(paths, Path(entry.path))
    except OSError as error:
        logger.warning("sweep", problem=str(error))
    if removed:
        logger.info("sweep", removed=removed)


def _remove(paths: Confinement, path: Path) -> bool:
    try:
        with parent_of(paths, paths.resolve(str(path), follow=False)) as folder:
            found = folder.stat(path.name)
            if found is not None and stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path.name, dir_fd=folder.descriptor)
            else:
                folder.unlink(path.name)
    except (OSError, SandboxError) as error:
        logger.warning("sweep", path=shown(path), problem=str(error))
        return False
    return True
