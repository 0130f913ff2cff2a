"""What upgrades keep on disk, and where."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from aisandbox.instance import files
from aisandbox.instance.keep.upgrade import rules, tree
from aisandbox.instance.keep.upgrade.errors import UpgradeError

Phase = Literal["ready", "switching", "undone", "committing"]
"""
ready       the new release lies beside the one that runs
switching   services are stopped, and the new release is put in place and proves itself, or is being undone
undone      the former release is in place; its services are still to be seen to
committing  the new release has proved itself; what nobody needs any more is being removed

A power cut before `committing` leads back to the former release.
"""


@dataclass
class State:
    """One upgrade or rollback under way."""

    operation: Literal["upgrade", "rollback"]
    from_version: str
    to_version: str
    former: str
    """Name of the folder of the release that runs."""
    target: str
    """Name of the folder of the new one."""
    paths: tuple[str, ...]
    """Relative to `/`: all that differs between the two."""
    units: tuple[str, ...]
    """Services of both releases: stopped before the exchange."""
    ports: dict[str, int]
    """Of the release that runs."""
    new_ports: dict[str, int]
    timeout_s: float
    release: str | None
    """Description of the new release, if it has one."""
    former_release: str | None
    chat_changes: bool
    """Whether the chat page's program is exchanged, which may change the form of its database."""
    restore: str | None = None
    """Backup of the database that belongs to the new release (of a rollback)."""
    phase: Phase = "ready"
    before: dict[str, Any] = field(default_factory=dict)
    """How healthy the instance was."""
    backup: str | None = None
    """Backup of the database that was made before the exchange."""
    reason: str = ""
    """Why it is undone. It may be published."""
    detail: str = ""
    """Last words of what failed, for those who may read the journal."""

    @property
    def reversed(self) -> State:
        """The way back."""
        return replace(
            self,
            operation="rollback",
            from_version=self.to_version,
            to_version=self.from_version,
            former=self.target,
            target=self.former,
            ports=self.new_ports,
            new_ports=self.ports,
            release=self.former_release,
            former_release=self.release,
            restore=self.backup,
            phase="ready",
            before={},
            backup=None,
        )


class Upgrades:
    """The releases of the instance below `root`, and what upgrades know about them."""

    def __init__(self, root: Path, data: Path) -> None:
        self.root = root
        self.base = root / rules.STATE
        self.releases = root / rules.RELEASES
        """A folder for each release, in which its paths lie as they do below `/`."""
        self.current = root / rules.CURRENT
        """The link that says which of them runs."""
        self.state_file = self.base / "state.json"
        self.result_file = self.base / "result.json"
        self.installed_file = self.base / "installed.json"
        self.previous_file = self.base / "previous.json"
        """The release that a rollback leads to."""
        self.digests_file = self.base / "digests.json"
        self.log = self.base / "progress.log"
        self.download = self.base / "download"
        self.tool = self.base / "tool"
        self.backups = data / "upgrade"
        """Copies of the chat page's database, on the disk where it lies itself."""
        self.database = data / "open-webui" / "data" / "webui.db"

    @property
    def under_way(self) -> dict[str, Any] | None:
        """The upgrade under way, if one is, by whatever version."""
        return files.read_json(self.state_file)

    def load(self) -> State | None:
        """The upgrade under way, by this version."""
        return _state(self.under_way)

    def save(self, state: State) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        files.write_json(self.state_file, asdict(state))
        tree.sync_folder(self.base)

    def finish(self, state: State, outcome: Literal["done", "undone", "broken"], message: str, fix: str = "") -> None:
        """Record how it ended, and that nothing is under way any more."""
        result = {
            "operation": state.operation,
            "from": state.from_version,
            "to": state.to_version,
            "outcome": outcome,
            "message": message,
            "detail": state.detail,
            "fix": fix,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        files.write_json(self.result_file, result)
        files.remove(self.state_file)
        tree.sync_folder(self.base)

    @property
    def installed(self) -> str | None:
        """Description of the release that runs, if it is not the image's own."""
        return self.installed_file.read_text(encoding="utf-8") if self.installed_file.exists() else None

    @property
    def result(self) -> dict[str, Any] | None:
        """How the last one ended."""
        return files.read_json(self.result_file)

    @property
    def kept(self) -> State | None:
        """The rollback that the last upgrade or rollback has left."""
        return _state(files.read_json(self.previous_file))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the right to prepare an upgrade.

        Raises:
            UpgradeError: another command holds it, or an upgrade is under way.
        """
        self.base.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UpgradeError("another aisandbox upgrade is at work", "wait until it has ended") from None
            state = self.under_way
            if state:
                raise UpgradeError(
                    f"the {state['operation']} to {state['to_version']} is under way ({state['phase']})",
                    "follow it with: sudo aisandbox upgrade --status",
                )
            yield
        finally:
            os.close(descriptor)


def _state(value: dict[str, Any] | None) -> State | None:
    if value is None:
        return None
    return State(**{**value, "paths": tuple(value["paths"]), "units": tuple(value["units"])})
