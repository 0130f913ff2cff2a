"""Copies of this checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from aisandbox.manifest import REPOSITORY

MADE_HERE = {"build", ".venv", ".git"}


def copy_checkout(target: Path) -> None:
    """Copy what a commit of the working tree would hold; without git, all but what is made here."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(REPOSITORY, target, ignore=_made_here, symlinks=True)
        return
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)


def _made_here(folder: str, names: list[str]) -> set[str]:
    caches = {name for name in names if name == "__pycache__" or name.endswith("_cache")}
    return caches | (MADE_HERE.intersection(names) if Path(folder) == REPOSITORY else set())
