"""What licences an image brings along, held against the policy in policy.yaml."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from aisandbox.builder.errors import BuildError
from aisandbox.builder.supply.inventory import Inventory, Kind, Package
from aisandbox.builder.supply.licences import NOASSERTION, symbols

POLICY = Path(__file__).with_name("policy.yaml")
NAMES = ("licences.md", "licences.json")
OWN_NAMES = "LicenseRef-Debian-"
KINDS = {
    Kind.debian: "Debian packages",
    Kind.python: "Python packages",
    Kind.npm: "npm packages",
    Kind.model: "models",
    Kind.own: "our own code",
}


@dataclass(frozen=True)
class Line:
    """A package that the report names, and why."""

    kind: Kind
    name: str
    version: str
    licence: str
    says: str


@dataclass(frozen=True)
class Report:
    """The licences of an inventory."""

    inventory: Inventory
    subject: str
    named: tuple[Line, ...]
    refused: tuple[Line, ...]

    @property
    def unknown(self) -> list[Package]:
        """Packages that do not say their licence in a way that machines can read."""
        return [package for package in self.inventory.packages if package.licence == NOASSERTION]

    @property
    def counts(self) -> list[tuple[str, int]]:
        """Licences, and how many packages name each; the most frequent first."""
        found = Counter(name for package in self.inventory.packages for name in symbols(package.licence))
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))

    def check(self) -> None:
        """Stop before an image is written that must not be.

        Raises:
            BuildError: a package's licence is refused by the policy.
        """
        if self.refused:
            first = self.refused[0]
            more = f", and {len(self.refused) - 1} more" if len(self.refused) > 1 else ""
            raise BuildError(
                f"{first.name} {first.version} must not be in the image: {first.licence} {first.says}{more}",
                f"remove the package, or name it with its reason in {POLICY.parent.name}/{POLICY.name}",
            )

    def to_json(self) -> str:
        """The report for programs."""
        content: dict[str, Any] = {
            "subject": self.subject,
            "licences": dict(self.counts),
            "named": [asdict(line) for line in self.named],
            "refused": [asdict(line) for line in self.refused],
            "unknown": [package.purl for package in self.unknown],
            "unreadable": list(self.inventory.problems),
            "packages": [
                {"purl": package.purl, "licence": package.licence, "said_in": package.said_in}
                for package in self.inventory.packages
            ],
        }
        return json.dumps(content, indent=1) + "\n"

    def to_markdown(self) -> str:
        """The report for people."""
        packages = self.inventory.packages
        own = [item for item in self.counts if item[0].startswith(OWN_NAMES)]
        lines = [f"# Licences in {self.subject}", "", "| what | how many | without a licence that machines can read |"]
        lines += ["|---|---|---|"]
        for kind, title in KINDS.items():
            of_kind = self.inventory.of(kind)
            if of_kind:
                lines.append(f"| {title} | {len(of_kind)} | {sum(p.licence == NOASSERTION for p in of_kind)} |")
        lines += ["", "Made by `make image` from what the packages say of themselves.", ""]
        lines += _section("Must not be in", self.refused, "Nothing.")
        lines += _section("With conditions of their own", self.named, "Nothing.")
        lines += ["## By licence", "", "A package with several licences counts for each.", ""]
        lines += ["| licence | packages |", "|---|---|"]
        lines += [f"| {name} | {count} |" for name, count in self.counts if not name.startswith(OWN_NAMES)]
        if own:
            lines.append(f"| {len(own)} further texts, as Debian's copyright files call them | {_users(packages)} |")
        lines += ["", "## Not known", "", "Their licence is told in these files, or nowhere.", ""]
        lines += ["| package | version | look in |", "|---|---|---|"]
        lines += [f"| {_cell(p.name)} | {_cell(p.version)} | {_cell(_where(p))} |" for p in self.unknown]
        lines += ["", "## All packages", "", "| kind | package | version | licence |", "|---|---|---|---|"]
        lines += [f"| {p.kind.value} | {_cell(p.name)} | {_cell(p.version)} | {_cell(p.licence)} |" for p in packages]
        if self.inventory.problems:
            lines += ["", "## Metadata that could not be read", ""]
            lines += [f"- {_cell(problem)}" for problem in self.inventory.problems]
        return "\n".join(lines) + "\n"


def _users(packages: tuple[Package, ...]) -> int:
    return sum(OWN_NAMES in package.licence for package in packages)


def _where(package: Package) -> str:
    return package.said_in or ", ".join(package.places) or "the package"


def _section(title: str, lines: tuple[Line, ...], nothing: str) -> list[str]:
    if not lines:
        return [f"## {title}", "", nothing, ""]
    rows = [f"| {_cell(x.name)} | {_cell(x.version)} | {_cell(x.licence)} | {_cell(x.says)} |" for x in lines]
    return [f"## {title}", "", "| package | version | licence | |", "|---|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    """Foreign text in a table: no markup of its own."""
    return "".join(f"\\{char}" if char in "|`<>[]*_\\" else char for char in text)


def report(inventory: Inventory, subject: str, policy: dict[str, Any] | None = None) -> Report:
    """Hold an inventory against the policy."""
    rules: dict[str, Any] = policy or yaml.safe_load(POLICY.read_text())
    named, refused = [], []
    for package in inventory.packages:
        if says := _named(package, rules):
            named.append(_line(package, says))
        elif why := _refused(package, rules):
            refused.append(_line(package, why))
    return Report(inventory, subject, tuple(named), tuple(refused))


def _line(package: Package, says: str) -> Line:
    return Line(package.kind, package.name, package.version, package.licence, says)


def _named(package: Package, rules: dict[str, Any]) -> str:
    return next((str(rule["says"]) for rule in rules["named"] if fnmatchcase(package.name, rule["package"])), "")


def _refused(package: Package, rules: dict[str, Any]) -> str:
    for rule in rules["refused"]:
        if package.kind.value not in rule.get("kinds", [package.kind.value]):
            continue
        if "section" in rule and fnmatchcase(package.section, rule["section"]):
            return str(rule["why"])
        if "licence" in rule and package.licence != NOASSERTION and not _escapes(package.licence, rule["licence"]):
            return str(rule["why"])
    return ""


def _escapes(expression: str, pattern: str) -> bool:
    """Whether the package can be had without the licence: it is not named, or only as one of several to choose from."""
    if " OR " in expression and " AND " not in expression:
        return any(not fnmatchcase(name, pattern) for name in symbols(expression))
    return not any(fnmatchcase(name, pattern) for name in symbols(expression))
