"""The inventory of a baked root file system: every package in it, and everything else that brings a licence along."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from packageurl import PackageURL

from aisandbox import manifest
from aisandbox.builder.supply.licences import NOASSERTION
from aisandbox.check.tree import Tree

OPT = str(manifest.load().paths.opt.relative_to("/"))
"""Our folder, relative to the root."""
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")
LONGEST = 500


class Kind(StrEnum):
    """What kind of package it is; the value is its type in a package URL."""

    debian = "deb"
    python = "pypi"
    npm = "npm"
    model = "model"
    own = "own"


@dataclass(frozen=True, order=True)
class Package:
    """A package of the image, wherever and however often it is installed."""

    kind: Kind
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    """Debian's source package, and its version where that differs."""
    source_version: str = ""
    section: str = ""
    distribution: str = ""
    """Such as `debian-12`."""
    licence: str = NOASSERTION
    """An SPDX expression, or NOASSERTION."""
    said_in: str = ""
    """Where the licence is said: a path of the image, or a field of the package's metadata."""
    supplier: str = ""
    homepage: str = ""
    places: tuple[str, ...] = ()
    """Where it is installed: environments of Python, folders of npm."""
    artifact: str = ""
    """Digest of the file that it came as, `ALGORITHM:HEX`, where the lock names one."""
    content: str = ""
    """`sha256:HEX` of the list of its files with their digests, as the package itself carries it."""
    commit: str = ""

    @property
    def purl(self) -> str:
        """The package URL."""
        if self.kind is Kind.debian:
            qualifiers = {"arch": self.architecture, "distro": self.distribution}
            vendor = self.distribution.partition("-")[0]
            return PackageURL("deb", vendor, self.name, self.version, qualifiers).to_string()
        if self.kind is Kind.npm:
            scope, _, name = self.name.rpartition("/")
            return PackageURL("npm", scope or None, name, self.version).to_string()
        if self.kind is Kind.python:
            return PackageURL("pypi", None, self.name, self.version).to_string()
        qualifiers = {"vcs_ref": self.commit} if self.commit else {}
        return PackageURL("generic", None, self.name.replace("/", "-"), self.version, qualifiers).to_string()

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from every other one, in the order of lists."""
        return (self.kind.value, self.name, self.version, self.architecture)


@dataclass(frozen=True)
class Inventory:
    """All packages of an image, sorted. `texts` are texts of licences that SPDX's list does not have."""

    name: str
    version: str
    packages: tuple[Package, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """Metadata that could not be read; what it belongs to is listed nevertheless."""
    mirrors: tuple[str, ...] = ()
    """Where apt has the Debian packages from."""

    def of(self, kind: Kind) -> list[Package]:
        return [package for package in self.packages if package.kind is kind]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Inventory:
        known = {entry.name for entry in fields(Package)}
        packages = tuple(
            Package(**{**{k: v for k, v in entry.items() if k in known},
                       "kind": Kind(entry["kind"]), "places": tuple(entry["places"])})
            for entry in content["packages"]
        )  # fmt: skip
        return cls(
            name=content["name"],
            version=content["version"],
            packages=packages,
            texts=dict(content["texts"]),
            problems=tuple(content["problems"]),
            mirrors=tuple(content["mirrors"]),
        )


@dataclass
class Findings:
    """What a reader of one kind of packages has found."""

    packages: list[Package] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def clean(text: object) -> str:
    """Foreign text as one line that can be printed, of bounded length."""
    return " ".join(CONTROL.sub(" ", str(text if text is not None else "")).split())[:LONGEST]


def merged(packages: Iterable[Package]) -> tuple[Package, ...]:
    """Each package once, with all places where it is; sorted."""
    found: dict[tuple[str, str, str, str], Package] = {}
    for package in packages:
        known = found.get(package.key)
        if known:
            better = known if known.licence != NOASSERTION else package
            places = tuple(sorted({*known.places, *package.places}))
            package = replace(better, places=places, artifact=known.artifact or package.artifact)
        found[package.key] = package
    return tuple(sorted(found.values(), key=lambda package: package.key))


def mirrors(tree: Tree) -> tuple[str, ...]:
    """Package sources of apt, `URL SUITE`, from both of its formats."""
    found: set[str] = set()
    files = ["etc/apt/sources.list"] + [f"etc/apt/sources.list.d/{n}" for n in tree.names("etc/apt/sources.list.d")]
    for path in files:
        text = tree.text(path, 2**20) or ""
        if path.endswith(".sources"):
            for block in re.split(r"\n\s*\n", text):
                entry = dict(re.findall(r"^(URIs|Suites):[ \t]*(.*)$", block, re.MULTILINE))
                found.update(f"{u} {s}" for u in entry.get("URIs", "").split() for s in entry.get("Suites", "").split())
        else:
            for url, suite in re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE):
                found.add(f"{url} {suite}")
    return tuple(sorted(clean(source) for source in found))
