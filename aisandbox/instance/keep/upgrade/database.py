"""The chat page's database, which a newer Open WebUI changes and an older one cannot read then.

A copy is made before the exchange. On the way back it is put in place only when the form of the database has changed:
otherwise the chats of the meantime stay.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

from aisandbox.instance.keep.upgrade import tree
from aisandbox.instance.keep.upgrade.state import Upgrades

PARTS = ("", "-wal", "-shm")
"""Suffixes of the files that make up a database."""
MIGRATIONS = ("alembic_version", "migratehistory")
"""Tables in which Open WebUI keeps what it has changed."""


def size(upgrades: Upgrades) -> int:
    """Bytes of the database; 0 when there is none."""
    return sum(path.stat().st_size for path in _parts(upgrades.database) if _is_file(path))


def back_up(upgrades: Upgrades, version: str) -> str | None:
    """Copy the database while the chat page is stopped. Returns the copy's name; None when there is nothing to copy."""
    if not _is_file(upgrades.database):
        return None
    upgrades.backups.mkdir(mode=0o700, exist_ok=True)
    name = f"webui-{version}.db"
    _copy(upgrades.database, upgrades.backups / name)
    return name


def restore_if_changed(upgrades: Upgrades, backup: str, version: str) -> str | None:
    """Put the copy back if the database has another form by now. Returns the name under which the latter is kept.

    The chat page must be stopped.

    Args:
        version: of the release that changed the database.
    """
    copy = upgrades.backups / backup
    if not _is_file(copy) or not _is_file(upgrades.database) or form(copy) == form(upgrades.database):
        return None
    aside = upgrades.backups / f"webui-{version}.db"
    _copy(upgrades.database, aside)
    owner = upgrades.database.stat()
    temporary = upgrades.backups / ".restored.db"
    _copy(copy, temporary)
    for part in _parts(temporary):
        if part.exists():
            os.chown(part, owner.st_uid, owner.st_gid)
            part.chmod(stat.S_IMODE(owner.st_mode))
    # The main file comes last, when nothing is left beside it that belongs to the other.
    for part, live in reversed(list(zip(_parts(temporary), _parts(upgrades.database), strict=True))):
        if part.exists():
            part.replace(live)
        else:
            tree.remove(live)
    return aside.name


def form(database: Path) -> tuple[object, ...]:
    """The form of a database: its tables, and the migrations that were made. The files are not touched."""
    # SQLite writes beside what it reads, and the folder is another user's.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "look.db"
        _copy(database, copy)
        with closing(sqlite3.connect(copy)) as connection:
            found: list[object] = connection.execute(
                "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
            ).fetchall()
            names = {row[1] for row in found if isinstance(row, tuple)}
            for table in MIGRATIONS:
                if table in names:
                    rows = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a constant
                    found.append(sorted(map(repr, rows)))
    return tuple(found)


def _parts(database: Path) -> list[Path]:
    return [Path(f"{database}{suffix}") for suffix in PARTS]


def _is_file(path: Path) -> bool:
    """Whether it is a file itself, and no link that its owner points elsewhere."""
    return path.is_file() and not path.is_symlink()


def _copy(source: Path, target: Path) -> None:
    for suffix in PARTS:
        part, copy = Path(f"{source}{suffix}"), Path(f"{target}{suffix}")
        tree.remove(copy)
        if _is_file(part):
            shutil.copyfile(part, copy, follow_symlinks=False)
            copy.chmod(0o600)
            with copy.open("rb") as file:
                os.fsync(file.fileno())
