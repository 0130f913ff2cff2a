"""What a check is, what it may look at, and what it finds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from aisandbox.check import dpkg
from aisandbox.check.tree import Tree

if TYPE_CHECKING:
    from aisandbox.manifest import Manifest

Severity = Literal["error", "warning"]
Stage = Literal["image", "instance"]
"""`image`: before the first boot of an instance; `instance`: on one that somebody uses."""
STAGES: tuple[Stage, ...] = ("image", "instance")


class NotCheckedError(Exception):
    """It could not be looked at here; the message says why. Never the same as nothing found."""


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is not as it should be. `text` never holds the content of a secret."""

    path: str
    text: str = ""


@dataclass(frozen=True)
class Waiver:
    """Findings of a check that are accepted for a while, and why."""

    check: str
    reason: str
    until: date
    """The last day on which it holds."""
    target: str | None = None
    path: str = "*"
    """Pattern of the paths whose findings it accepts."""


@dataclass(frozen=True)
class Settings:
    """What is asked about, and what the product is: all that checks know besides the root file system."""

    stage: Stage = "image"
    target: str | None = None
    live: bool = False
    """The root file system is the running machine's own, whose processes can be asked."""
    online: bool = True
    """Package mirrors may be asked."""
    hostname: str = "aisandbox"
    """Name that the image may have; instances get their own."""
    ports: tuple[int, ...] = (22,)
    """Ports that may listen on more than loopback."""
    opt: str = "/opt/aisandbox"
    etc: str = "/etc/aisandbox"
    data: str = "/var/lib/aisandbox"
    waivers: tuple[Waiver, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, **changes: Any) -> Settings:
        """The settings of a product, with what is asked about as changes."""
        return cls(
            hostname=manifest.product.id,
            ports=tuple(port.port for port in manifest.ports.values() if port.public),
            opt=str(manifest.paths.opt),
            etc=str(manifest.paths.etc),
            data=str(manifest.paths.data),
            waivers=tuple(Waiver(**waiver.model_dump()) for waiver in manifest.waivers),
        ).but(**changes)

    def but(self, **changes: Any) -> Settings:
        return Settings(**{item.name: getattr(self, item.name) for item in fields(self)} | changes)

    def to_json(self) -> dict[str, Any]:
        waivers = [{**asdict(waiver), "until": waiver.until.isoformat()} for waiver in self.waivers]
        return {**asdict(self), "waivers": waivers}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Settings:
        waivers = tuple(Waiver(**{**w, "until": date.fromisoformat(w["until"])}) for w in record["waivers"])
        return cls(**{**record, "ports": tuple(record["ports"]), "waivers": waivers})


@dataclass(frozen=True)
class Account:
    """A line of /etc/passwd, with the password of /etc/shadow."""

    name: str
    field: str
    """Password field of /etc/passwd itself."""
    shadow: str | None
    uid: int
    home: str
    shell: str


@dataclass(frozen=True)
class Subject:
    """What is looked at: a root file system, and perhaps the machine that runs from it."""

    tree: Tree
    settings: Settings = field(default_factory=Settings)

    @cached_property
    def accounts(self) -> list[Account]:
        shadow = dict(row[:2] for row in self.rows("/etc/shadow", 2))
        return [
            Account(row[0], row[1], shadow.get(row[0]), int(row[2]), row[5], row[6])
            for row in self.rows("/etc/passwd", 7)
            if row[2].isdigit()
        ]

    @cached_property
    def groups(self) -> set[int]:
        return {int(row[2]) for row in self.rows("/etc/group", 3) if row[2].isdigit()}

    @cached_property
    def homes(self) -> list[str]:
        """Home folders of people: not root's, and none of the system's own folders that accounts name as theirs."""
        listed = [account.home.rstrip("/") for account in self.accounts if account.uid]
        system = ("/usr", "/bin", "/sbin", "/dev", "/run", "/etc", "/nonexistent", "/root")
        there = [entry.path for entry in self.tree.glob("/home/*") if entry.is_folder]
        return sorted({home for home in (*listed, *there) if home and not home.startswith(system)})

    def in_homes(self, *names: str) -> list[str]:
        """Patterns of these names in the homes of root and of people."""
        return [f"{home}/{name}" for home in ("/root", *self.homes) for name in names]

    @cached_property
    def packages(self) -> dict[str, dict[str, str]]:
        """Debian packages that dpkg knows, by name; several architectures of one name count as the last."""
        records = dpkg.paragraphs(self.tree.text(f"/{dpkg.STATUS}") or "")
        return {record["Package"]: record for record in records if "Package" in record}

    def installed(self, name: str) -> str | None:
        """Version of an installed Debian package."""
        record = self.packages.get(name)
        return record.get("Version") if record and dpkg.installed(record) else None

    def rows(self, path: str, columns: int) -> Iterator[list[str]]:
        for line in self.tree.lines(path):
            row = line.split(":")
            if len(row) >= columns:
                yield row

    def run(self, command: Sequence[str], timeout_s: float = 60) -> str:
        """What a tool of this host prints, its messages included.

        Raises:
            NotCheckedError: there is no such tool here, or it takes too long.
        """
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout_s,
                cwd="/",  # ours may be the home of an account that is gone
                check=False,
            ).stdout
        except FileNotFoundError as error:
            raise NotCheckedError(f"{command[0]} is not installed on the host that checks") from error
        except subprocess.TimeoutExpired as error:
            raise NotCheckedError(f"{command[0]} did not end within {timeout_s:.0f} s") from error


Look = Callable[[Subject], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """One rule. `sources` names the lists of the vendors and projects that have it, or one like it."""

    id: str
    title: str
    why: str
    fix: str
    look: Look
    sources: tuple[str, ...] = ()
    severity: Severity = "error"
    stages: tuple[Stage, ...] = ("image",)
    targets: tuple[str, ...] = ()
    """Only for these; none means all."""
    live: bool = False
    """Needs the running machine."""

    def applies(self, settings: Settings) -> bool:
        return settings.stage in self.stages and (not self.targets or settings.target in self.targets)


CHECKS: dict[str, Check] = {}
"""Every check, in the order in which they are shown."""


def check(title: str, *, why: str, fix: str, name: str = "", **rest: Any) -> Callable[[Look], Look]:
    """Put a function into the table, under its own name."""

    def register(look: Look) -> Look:
        identifier = name or look.__name__.replace("_", "-")
        assert identifier not in CHECKS, identifier
        CHECKS[identifier] = Check(identifier, title, why, fix, look, **rest)
        return look

    return register


def entries(found: Iterable[Any], text: str = "") -> Iterator[Finding]:
    """Findings of these entries of the tree."""
    return (Finding(entry.path, text) for entry in found)
