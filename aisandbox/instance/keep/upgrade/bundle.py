"""The description of a release, `release.json`: read with care, whoever signed it."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import asdict, dataclass, field
from typing import Any

from aisandbox.instance.keep.upgrade import rules
from aisandbox.instance.keep.upgrade.errors import UpgradeError

MANIFEST = "release.json"
LONGEST_MANIFEST = 4 << 20
SCHEMA = 1
VERSION = re.compile(r"\d+(\.\d+){0,3}([~+.-][A-Za-z0-9.]{1,32})?")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_BYTES = 1 << 41
MOST_ENTRIES = 5_000_000
ASK = "report it to the vendor of the release"


@dataclass(frozen=True)
class Archive:
    """The packed form of a component: a file of the release."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Component:
    """Files and folders that change together."""

    name: str
    paths: tuple[str, ...]
    """Relative to `/`; each is replaced as a whole."""
    digest: str
    bytes: int
    entries: int
    archive: Archive | None
    """None: left out, because instances that the release is for already have the component."""

    @property
    def file(self) -> str:
        """Name of the packed component beside the description."""
        return f"{self.name}-{self.digest[:16]}.tar.zst"


@dataclass(frozen=True)
class Release:
    """Everything about a release but its files."""

    product: str
    version: str
    flavour: str
    architecture: str
    os: dict[str, str]
    upgrade_from: str
    """Oldest version that can be upgraded from."""
    notes: tuple[str, ...]
    packages: dict[str, str]
    """Debian packages that it needs, and the oldest version of each; empty for any."""
    ports: dict[str, int]
    retired: tuple[str, ...]
    """Files of earlier releases that this one does without, relative to `/`."""
    components: tuple[Component, ...] = field(default=())

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @property
    def paths(self) -> frozenset[str]:
        """All paths that it owns."""
        return frozenset(path for component in self.components for path in component.paths)


def parse(text: str | bytes) -> Release:
    """The release that a description tells of.

    Raises:
        UpgradeError: it is damaged, of a later form, or claims what no release may.
    """
    try:
        value = json.loads(text)
        if value.get("schema") != SCHEMA:
            raise UpgradeError(
                f"the release is described in form {value.get('schema')!r}; this instance reads form {SCHEMA}",
                "upgrade to a release in between first",
            )
        release = _release(value)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UpgradeError(f"the description of the release ({MANIFEST}) is damaged: {reason}", ASK) from error
    _check(release)
    return release


def _release(value: dict[str, Any]) -> Release:
    return Release(
        product=_text(value["product"]),
        version=_version(value["version"]),
        flavour=_text(value["flavour"]),
        architecture=_text(value["architecture"]),
        os={_text(key): _text(entry) for key, entry in value["os"].items()},
        upgrade_from=_version(value["upgrade_from"]),
        notes=tuple(_text(line) for line in value["notes"]),
        packages={_matching(PACKAGE, name): _text(least) for name, least in value["packages"].items()},
        ports={_text(name): _number(port, 65535) for name, port in value["ports"].items()},
        retired=tuple(_path(path) for path in value["retired"]),
        components=tuple(_component(entry) for entry in value["components"]),
    )


def _component(value: dict[str, Any]) -> Component:
    packed = value["archive"]
    archive = packed and Archive(_matching(SHA256, packed["sha256"]), _number(packed["bytes"], MOST_BYTES))
    return Component(
        name=_matching(rules.NAME, value["name"]),
        paths=tuple(_path(path) for path in value["paths"]),
        digest=_matching(SHA256, value["digest"]),
        bytes=_number(value["bytes"], MOST_BYTES),
        entries=_number(value["entries"], MOST_ENTRIES),
        archive=archive,
    )


def _check(release: Release) -> None:
    owned = sorted((path, component.name) for component in release.components for path in component.paths)
    for path, name in [*owned, *((path, "retired") for path in release.retired)]:
        if not rules.may_replace(path):
            raise UpgradeError(f"the release claims {path!r} ({name}), which no release may replace", ASK)
    names = [component.name for component in release.components]
    if len(set(names)) != len(names) or not names:
        raise UpgradeError("the release has no components, or two of the same name", ASK)
    for (one, _), (other, name) in zip(owned, owned[1:], strict=False):
        if one == other or other.startswith(f"{one}/"):
            raise UpgradeError(f"the release claims {other!r} twice ({name})", ASK)


def _text(value: object) -> str:
    text = _path(value)
    if not text.isprintable():
        raise ValueError(f"{text!r:.40} is not a line of text")
    return text


def _path(value: object) -> str:
    """Which paths may be named, `rules` says."""
    if not isinstance(value, str) or len(value) > 4096:
        raise ValueError(f"{value!r:.40} must be text of at most 4096 characters")
    return value


def _matching(rule: re.Pattern[str], value: object) -> str:
    text = _text(value)
    if not rule.fullmatch(text):
        raise ValueError(f"{text!r:.80} does not match {rule.pattern}")
    return text


def _version(value: object) -> str:
    return _matching(VERSION, value)


def _number(value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} must be an integer from 0 to {most}")
    return value


def older(one: str, other: str) -> bool:
    """Whether one version comes before another, by Debian's order."""
    command = ["dpkg", "--compare-versions", one, "lt", other]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
